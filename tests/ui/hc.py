from shoot import *
with sync_playwright() as p:
    b,page=open_lab(p); page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); theme(page,'JupyterLab Dark High Contrast'); width(page,250); time.sleep(3); page.locator('#eaf-inference-panel').screenshot(path='/tmp/w/shots/hc-mig.png')
    width(page,200); theme(page,'JupyterLab Light'); time.sleep(2); page.locator('#eaf-inference-panel').screenshot(path='/tmp/w/shots/mig-light-200.png'); width(page,600); time.sleep(2); page.locator('#eaf-inference-panel').screenshot(path='/tmp/w/shots/mig-light-600.png'); print(page.errs); b.close()
