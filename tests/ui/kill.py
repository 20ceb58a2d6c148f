import shoot; shoot.BASE='http://127.0.0.1:8952/user/alice/'
from shoot import *
import subprocess, os, signal
def head(page): return page.locator('#eaf-inference-panel').inner_text().replace('\n',' | ')[:230]
with sync_playwright() as p:
    b,page=open_lab(p); page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(5); print('0', head(page))
    up=int(open('/tmp/w/ui/up.pid').read()); os.kill(up, signal.SIGINT)
    t=time.time()
    for i in range(14):
        time.sleep(2.5); print(round(time.time()-t), head(page))
    page.locator('#eaf-inference-panel').screenshot(path='/tmp/w/shots/real-killed.png')
    q=subprocess.Popen(['/work/main/.venv/bin/eaf-inference','up','--json'],stdout=open('/tmp/w/ui/up.json','w'),stderr=open('/tmp/w/ui/up.err','w'),start_new_session=True); open('/tmp/w/ui/up.pid','w').write(str(q.pid))
    t=time.time()
    for i in range(12):
        time.sleep(3); print('restart',round(time.time()-t), head(page))
    for e in page.errs: print(str(e)[:200])
    b.close()
