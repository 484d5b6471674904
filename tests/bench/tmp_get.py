import time, os, cProfile, pstats
from tests.fix_store import open_s3
from pgbackup.repository.codec import Codec, Compression
def test_get(s3_tls_server, s3_server, monkeypatch):
    data=os.urandom(64<<20)
    for srv in (s3_tls_server,s3_server):
        st=open_s3(srv,monkeypatch)
        for k in range(4):
            u=st.start_upload(f'k{k}')
            for i in range(4): u.put_part(i+1,data[i<<24:(i+1)<<24])
            u.complete()
        for n in (1<<16,1<<18,1<<20):
            t=time.time(); c=time.process_time()
            for k in range(4):
                with st.open_read(f'k{k}') as s:
                    while s.read(n): pass
            print(n, 'wall',round(time.time()-t,2),'cpu',round(time.process_time()-c,2), 'MB/s', round(268/(time.time()-t)))
        pr=cProfile.Profile(); pr.enable()
        with st.open_read('k0') as s:
            while s.read(1<<18): pass
        pr.disable(); pstats.Stats(pr).sort_stats('tottime').print_stats(12)
