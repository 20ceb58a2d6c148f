from shoot import *
import collections, sys
with sync_playwright() as p:
    scen('many'); b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(4)
    if page.locator('text=and 48 more').count(): page.locator('text=and 48 more').click()
    time.sleep(4)
    for sc in ('many','hostile'):
        scen(sc); time.sleep(6)
        b.start_tracing(page=page, path='/tmp/w/ui/trace.json', categories=['devtools.timeline','v8','toplevel']); time.sleep(15); b.stop_tracing()
        ev=json.load(open('/tmp/w/ui/trace.json'))['traceEvents']
        main={(e['pid'],e['tid']) for e in ev if e.get('name')=='thread_name' and e['args'].get('name')=='CrRendererMain'}
        for name in ('FunctionCall','RunTask','ThreadControllerImpl::RunTask','RunMicrotasks','v8.callFunction'):
            d=[e.get('dur',0)/1000 for e in ev if e.get('ph')=='X' and e['name']==name and (e['pid'],e['tid']) in main]
            if d: d.sort(reverse=True); print(sc,name,len(d),[round(x,1) for x in d[:10]], 'sum/s',round(sum(d)/15,1))
    scen('mig'); b.close()
