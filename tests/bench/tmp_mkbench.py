import sys, os; sys.path.insert(0,'/work/main')
import pytest, threading
def test_mk(make_server):
    from tests.bench.bench_restore import load, _switch_wal
    from tests.base_backups import take
    from pgbackup.storage.file import FileStore
    server = make_server(settings={"max_wal_size": "4GB", "shared_buffers": "256MB"})
    load(server); server.execute("CHECKPOINT")
    store=FileStore("file:///tmp/e/bench/repo")
    d=_switch_wal(server); r=take(server,store); d.set(); print(r)
