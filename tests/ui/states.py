from shoot import *
import sys
only=sys.argv[1:]
with sync_playwright() as p:
    scen('mig'); b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(1)
    page.evaluate("document.querySelector('.jp-FileBrowser') && window.jupyterapp.shell.collapseLeft()")
    panel=page.locator('#eaf-inference-panel')
    for th in ('JupyterLab Light','JupyterLab Dark'):
        theme(page,th); time.sleep(1)
        for w in (250,450):
            width(page,w)
            for sc in ('mig','full','many','hostile','cpu','unmeasured','srcdead','no-facility','unreachable','not-authorised','misconfigured'):
                if only and sc not in only: continue
                if (w==450 or 'Dark' in th) and sc in ('unmeasured','not-authorised','misconfigured') and not only: continue
                if sc=='srcdead': scen('mig'); time.sleep(1.5)
                scen(sc); time.sleep(2.2)
                panel.screenshot(path=f'/tmp/w/shots/{sc}-{"dark" if "Dark" in th else "light"}-{w}.png')
    scen('mig')
    for e in page.errs: print(e)
    print('HACKED', page.evaluate('window.HACKED'), page.ext); b.close()
