from shoot import *
with sync_playwright() as p:
    b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(3)
    page.screenshot(path='/tmp/w/shots/first.png'); 
    for e in page.errs: print(e)
    print(page.ext); b.close()
