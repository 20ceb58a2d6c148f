import shoot; shoot.BASE='http://127.0.0.1:8952/user/alice/'
from shoot import *
from e2e_h import ready, run_cell
with sync_playwright() as p:
    b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(1)
    page.locator('.jp-LauncherCard', has_text='New Triton notebook').first.click()
    page.wait_for_selector('.jp-NotebookPanel'); ready(page); page.locator('.jp-OutputArea-output').first.wait_for(); width(page,300)
    run_cell(page,"import awkward as ak, numpy as np\nmodel=triton.model('particlenet'); fields=['part_deta','part_dphi','part_pt_log','part_e_log','part_logptrel','part_logerel','part_deltaR']"); time.sleep(1)
    run_cell(page,"triton.monitor()"); time.sleep(1)
    run_cell(page,"big = ak.zip({f: ak.from_regular(np.random.rand(300000, 32).astype('float32')) for f in fields})\nscores = model(big)"); time.sleep(25)
    page.screenshot(path='/tmp/w/shots/final-busy-light.png')
    theme(page,'JupyterLab Dark'); time.sleep(2); page.screenshot(path='/tmp/w/shots/final-busy-dark.png')
    page.evaluate(open('/tmp/w/ui/axe/node_modules/axe-core/axe.min.js').read())
    print(page.evaluate("async()=>{const r=await axe.run('.eaf-widget'); return r.violations.map(v=>[v.id,v.impact,v.nodes[0].html.slice(0,160),v.nodes[0].failureSummary.slice(0,200)])}"))
    theme(page,'JupyterLab Light'); time.sleep(1)
    print(page.evaluate("async()=>{const r=await axe.run('.eaf-widget'); return r.violations.map(v=>[v.id,v.impact,v.nodes[0].html.slice(0,160),v.nodes[0].failureSummary.slice(0,200)])}"))
    # keyboard: tab through the panel
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); seen=[]
    for _ in range(8):
        page.keyboard.press('Tab'); seen.append(page.evaluate("document.activeElement.getAttribute('aria-label')||document.activeElement.textContent.slice(0,40)"))
    print(seen)
    page.locator('.jp-EafInference-button', has_text='Stop').click(); time.sleep(3)
    page.screenshot(path='/tmp/w/shots/final-stopped.png')
    for e in page.errs: print(str(e)[:200])
    b.close()
