import shoot; shoot.BASE='http://127.0.0.1:8952/user/alice/'
from shoot import *
def ready(page):
    page.evaluate("async()=>{const s=window.jupyterapp.shell.currentWidget.context.sessionContext; await s.ready; for(let i=0;i<100&&s.session?.kernel?.status!=='idle';i++) await new Promise(r=>setTimeout(r,100));}")
def run_cell(page, src):
    page.evaluate("""async src=>{const nb=window.jupyterapp.shell.currentWidget.content; await window.jupyterapp.commands.execute('notebook:move-cursor-down'); nb.activeCellIndex=nb.widgets.length-1; await window.jupyterapp.commands.execute('notebook:insert-cell-below'); nb.activeCell.model.sharedModel.setSource(src); window.jupyterapp.commands.execute('notebook:run-cell');}""", src)
def text(page): return page.locator('#eaf-inference-panel').inner_text().replace('\n',' | ')
with sync_playwright() as p:
    b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(2)
    print(text(page))
    page.screenshot(path='/tmp/w/shots/real-launcher.png')
    page.locator('.jp-LauncherCard', has_text='New Triton notebook').first.click()
    page.wait_for_selector('.jp-NotebookPanel', timeout=20000); ready(page)
    page.locator('.jp-OutputArea-output').first.wait_for(timeout=30000); time.sleep(1.5)
    print('AFTER CONNECT', text(page))
    width(page,330); time.sleep(.5)
    page.screenshot(path='/tmp/w/shots/real-connected.png')
    # drag
    row=page.locator('.jp-EafInference-models tbody tr', has_text='particlenet').locator('th'); bb=row.bounding_box()
    cell=page.locator('.jp-Notebook .jp-Cell').last.bounding_box()
    page.mouse.move(bb['x']+30,bb['y']+8); page.mouse.down(); page.mouse.move(bb['x']-50,bb['y']+20,steps=4); page.mouse.move(cell['x']+200, cell['y']+cell['height']/2, steps=10); time.sleep(.3); page.screenshot(path='/tmp/w/shots/real-drag.png'); page.mouse.up(); time.sleep(1)
    n=page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.map(c=>c.model.sharedModel.getSource().slice(0,60))"); print(n)
    i=[k for k,s in enumerate(n) if 'awkward' in s]
    if i:
        page.evaluate("i=>{const nb=window.jupyterapp.shell.currentWidget.content; nb.deselectAll(); nb.activeCellIndex=i; window.jupyterapp.commands.execute('notebook:run-cell')}", i[0]); time.sleep(5)
        print([o.inner_text()[:200] for o in page.locator('.jp-OutputArea-output').all()][-1])
    run_cell(page, "triton.monitor()"); time.sleep(3)
    run_cell(page, "big = ak.zip({f: ak.from_regular(np.random.rand(2000, 32).astype('float32')) for f in fields})\nfor k in range(400): model(big)"); time.sleep(6)
    print('BUSY', text(page)); print('STATUS', page.locator('.jp-EafInference-status').inner_text())
    page.screenshot(path='/tmp/w/shots/real-busy.png')
    # reload while busy
    page.evaluate("window.jupyterapp.shell.currentWidget.context.save()"); time.sleep(2)
    page.goto(BASE+'lab'if 0 else shoot.BASE+'lab'); page.wait_for_selector('#eaf-inference-panel', timeout=30000); time.sleep(8)
    print('RELOADED', text(page)); page.screenshot(path='/tmp/w/shots/real-reloaded.png')
    stop=page.locator('.jp-EafInference-button', has_text='Stop')
    print('stop buttons', stop.count())
    if stop.count(): stop.first.click(); time.sleep(4)
    print('STOPPED', text(page)); page.screenshot(path='/tmp/w/shots/real-stopped.png')
    for e in page.errs: print(e)
    print('EXT', page.ext); b.close()
