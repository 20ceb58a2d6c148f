import sys, time, json, pathlib
from playwright.sync_api import sync_playwright
ARGS="--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-component-update --disable-default-apps --disable-sync --no-first-run --disable-features=OptimizationHints,MediaRouter,Translate --disable-background-timer-throttling --disable-renderer-backgrounding --disable-backgrounding-occluded-windows".split()
BASE='http://127.0.0.1:8951/user/alice/'
def scen(s): pathlib.Path('/tmp/w/ui/scenario').write_text(s)
def open_lab(p, w=1500, h=950):
    b=p.chromium.launch(executable_path='/usr/bin/chromium', args=ARGS); ctx=b.new_context(viewport=dict(width=w,height=h)); page=ctx.new_page()
    page.errs=[]
    page.on('console', lambda m: page.errs.append((m.type, m.text, m.location)) if m.type in('error','warning') else None)
    page.on('pageerror', lambda e: page.errs.append(('pageerror', str(e), '')))
    page.ext=[]
    page.on('request', lambda r: page.ext.append(r.url) if '127.0.0.1' not in r.url and not r.url.startswith(('data:','blob:')) else None)
    page.goto(BASE+'lab?token=tok&reset'); page.wait_for_function("window.jupyterapp && document.querySelector('#eaf-inference-panel, .jp-Launcher')", timeout=60000)
    page.evaluate("window.jupyterapp.restored"); return b,page
def width(page,w):
    page.evaluate("""w => { const s=window.jupyterapp.shell; const sp=s._hsplitPanel; const n=sp.widgets.length; const tot=sp.node.clientWidth; const left=s.leftCollapsed?0:280; sp.setRelativeSizes([left, tot-left-w, w].slice(3-n)); }""", w)
def theme(page,name): page.evaluate("n => window.jupyterapp.commands.execute('apputils:change-theme',{theme:n})", name)
