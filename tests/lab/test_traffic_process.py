"""The generator as its own process: how it ends, and what it prints."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest
from traffic_world import NAME, PORT, Service, world

from orchestrator.lab.traffic.record import read

A = "127.77.0.12"


async def start(w, *more: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator.lab.traffic", "--resolver", "{}:{}".format(*w.dns.endpoint)),
        *("--name", NAME, "--port", str(PORT), "--log", str(w.log), "--rate", "100", "--progress", *more),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


async def lines_until_end(process: asyncio.subprocess.Process) -> list[dict]:
    assert process.stdout is not None
    lines = [json.loads(line) async for line in process.stdout]
    await process.wait()
    return lines


@pytest.mark.parametrize("end", ["seconds", "SIGTERM", "SIGINT", "parent"])
def test_it_ends_cleanly_with_every_request_settled_logged_and_summed_up(tmp_path, end):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a"))
            process = await start(w, *{"seconds": ["--seconds", "1.2"], "parent": ["--with-parent"]}.get(end, []))
            first = json.loads(await process.stdout.readline())
            if end.startswith("SIG"):
                process.send_signal(getattr(signal, end))
            elif end == "parent":
                process.stdin.close()
            *_, summary = await lines_until_end(process)
            assert (process.returncode, await process.stderr.read()) == (0, b"")
            assert first["kind"] == "progress"
            assert summary["kind"] == "summary"
            assert summary["requests"]["sent"] == summary["requests"]["ok"] == len(list(read(w.log)))
            assert summary["requests"]["sent"] >= first["sent"] > 50

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_its_parent_turns_the_rate_while_it_runs(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a"))
            process = await start(w, "--with-parent", "--seconds", "2.2")
            first = json.loads(await process.stdout.readline())
            process.stdin.write(b"300\nmany\n")
            *_, summary = await lines_until_end(process)
            assert (process.returncode, await process.stderr.read()) == (0, b"traffic: 'many' is no rate\n")
            assert first["sent"] + 250 <= summary["requests"]["sent"] <= first["sent"] + 400

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_reader_that_goes_away_ends_it_and_costs_no_request(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a"))
            process = await start(w)
            await process.stdout.readline()
            process._transport.get_pipe_transport(1).close()
            await process.wait()
            assert process.returncode == 0
            assert {row.outcome for row in read(w.log)} == {"ok"}

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            w.log.write_text("")
            process = await start(w)
            _, told = await process.communicate()
            assert process.returncode == 2
            assert told.decode().startswith(f"traffic: {w.log} exists")
            assert told.count(b"\n") == 1

    asyncio.run(asyncio.wait_for(scenario(), 30))
