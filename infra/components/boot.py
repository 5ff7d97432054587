"""How a machine that runs Failout itself boots: install the pinned package, fetch the token, run one command.

Written for cloud-init on a Linux image with Python 3.11 or later and systemd. The token is read at each start and is
only ever in memory-backed /run; neither user data nor Pulumi's state holds it.
"""

from __future__ import annotations

import shlex

from infra.components.settings import Appliance

AGENT_PORT = 7070
TOKEN_FILE = "/run/failout/agent.token"  # noqa: S105 - a path


def aws_token(appliance: Appliance, region: str) -> str:
    """Shell that prints the token from AWS Secrets Manager with the machine's own role."""
    code = (
        "import boto3; "
        f"print(boto3.client('secretsmanager', '{region}').get_secret_value(SecretId='{appliance.token_secret}')['SecretString'], end='')"
    )
    return f"/opt/failout/bin/python -c {shlex.quote(code)}"


def azure_token(appliance: Appliance, client_id: str = "") -> str:
    """Shell that prints the token from Azure Key Vault with the machine's managed identity."""
    code = (
        "import httpx; from azure.identity import ManagedIdentityCredential; "
        f"t = ManagedIdentityCredential(client_id={client_id or None!r}).get_token('https://vault.azure.net/.default').token; "
        f"print(httpx.get('{appliance.token_secret}?api-version=7.4', headers={{'authorization': 'Bearer ' + t}})"
        ".raise_for_status().json()['value'], end='')"
    )
    return f"/opt/failout/bin/python -c {shlex.quote(code)}"


def agent_command(network: str, service_port: int) -> str:
    """Run the region agent on the machine's own private address (it refuses to listen on all)."""
    here = f'"$(hostname -I | cut -d" " -f1):{AGENT_PORT}"'
    return f"failout agent --listen {here} --allow {network} --service-port {service_port} --token-file {TOKEN_FILE}"


def script(appliance: Appliance, print_token: str, command: str) -> str:
    """Return the user data. `command` is run by systemd as a user of its own and started again when it ends."""
    return f"""#!/bin/sh
set -eu
useradd --system --home-dir /var/lib/failout --create-home failout || true
python3 -m venv /opt/failout
/opt/failout/bin/pip install --quiet {shlex.quote(appliance.package)}
cat > /usr/local/sbin/failout-token <<'TOKEN'
#!/bin/sh
set -eu
umask 077
{print_token} > {TOKEN_FILE}
chown failout {TOKEN_FILE}
TOKEN
cat > /usr/local/sbin/failout-run <<'RUN'
#!/bin/sh
PATH=/opt/failout/bin:$PATH
exec {command or "sleep infinity"}
RUN
chmod 0755 /usr/local/sbin/failout-token /usr/local/sbin/failout-run
cat > /etc/systemd/system/failout.service <<'UNIT'
[Unit]
After=network-online.target
Wants=network-online.target
[Service]
User=failout
RuntimeDirectory=failout
ExecStartPre=+/usr/local/sbin/failout-token
ExecStart=/usr/local/sbin/failout-run
WorkingDirectory=/var/lib/failout
Restart=always
RestartSec=2
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths=/var/lib/failout /run/failout
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now failout.service
"""
