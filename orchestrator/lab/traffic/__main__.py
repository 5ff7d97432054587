from __future__ import annotations

import sys

from orchestrator.lab.traffic.main import main

sys.exit(main())
