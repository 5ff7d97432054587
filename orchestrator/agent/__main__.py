from __future__ import annotations

import sys

from orchestrator.agent.main import main

sys.exit(main())
