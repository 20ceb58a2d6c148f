from shoot import *
AXE=open('/tmp/w/ui/axe/node_modules/axe-core/axe.min.js').read()
def axe(page,label):
    r=page.evaluate("async()=>{const r=await axe.run('#eaf-inference-panel'); return r.violations.map(v=>[v.id,v.impact,v.nodes.length,v.nodes[0].html.slice(0,160), v.nodes[0].failureSummary.slice(0,200)])}")
    s=page.evaluate("async()=>{const r=await axe.run('.jp-EafInference-status'); return r.violations.map(v=>[v.id,v.impact,v.nodes[0].html.slice(0,160)])}")
    print('AXE',label,r,s)
with sync_playwright() as p:
    scen('many'); b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(3)
    page.evaluate(AXE)
    for th in ('JupyterLab Light','JupyterLab Dark','JupyterLab Dark High Contrast'):
        theme(page,th); time.sleep(1)
        for sc in ('mig','many','hostile','cpu','unmeasured','srcdead','no-facility','unreachable','misconfigured'):
            if sc=='srcdead': scen('mig'); time.sleep(1.5)
            scen(sc); time.sleep(2); 
            if sc=='no-facility': page.locator('summary').click()
            axe(page, f'{th} {sc}')
            if 'High' in th and sc in('mig','no-facility'): page.locator('#eaf-inference-panel').screenshot(path=f'/tmp/w/shots/hc-{sc}.png')
    theme(page,'JupyterLab Light')
    for sc in ('many','hostile'):
        scen(sc); time.sleep(4)
        if page.locator('text=and 48 more').count(): page.locator('text=and 48 more').click()
        time.sleep(1)
        cdp=page.context.new_cdp_session(page)
        page.evaluate("""()=>{window.__t=[];const o=new PerformanceObserver(l=>l.getEntries().forEach(e=>window.__t.push([e.duration,e.blockingDuration, e.scripts?.map(s=>[s.duration,s.invoker])])));o.observe({type:'long-animation-frame',buffered:false});window.__o=o}""")
        cdp.send('Performance.enable'); m=lambda: {x['name']:x['value'] for x in cdp.send('Performance.getMetrics')['metrics']}
        cdp.send('Profiler.enable'); cdp.send('Profiler.start')
        a=m(); time.sleep(10); c=m(); pr=cdp.send('Profiler.stop')['profile']
        print(sc,{k:round((c[k]-a[k])/10*1000,2) for k in ('ScriptDuration','LayoutDuration','RecalcStyleDuration','TaskDuration')},'ms per second', page.evaluate('window.__t'))
        # longest contiguous busy script stretches
        t=pr['startTime']; idle={n['id'] for n in pr['nodes'] if n['callFrame']['functionName'] in('(idle)','(program)','(garbage collector)')}
        runs=[];cur=0
        for s,d in zip(pr['samples'],pr['timeDeltas']):
            if s in idle:
                if cur: runs.append(cur); cur=0
            else: cur+=d
        print('longest scripts ms', sorted([round(r/1000,1) for r in runs],reverse=True)[:8])
    page.evaluate("window.jupyterapp.shell.collapseRight()"); time.sleep(1)
    n=page.evaluate("performance.getEntriesByType('resource').length"); a=m(); time.sleep(5); c=m()
    print('hidden: requests', page.evaluate("performance.getEntriesByType('resource').filter(e=>e.name.includes('eaf-inference')).length"), n, 'status', page.locator('.jp-EafInference-status').inner_text(), round((c['ScriptDuration']-a['ScriptDuration'])*200,2))
    scen('mig'); b.close()
