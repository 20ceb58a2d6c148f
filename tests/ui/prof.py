from shoot import *
import collections
with sync_playwright() as p:
    scen('many'); b,page=open_lab(p)
    page.evaluate("window.jupyterapp.commands.execute('eaf-inference:open')"); time.sleep(4)
    if page.locator('text=and 48 more').count(): page.locator('text=and 48 more').click()
    time.sleep(3)
    cdp=page.context.new_cdp_session(page); cdp.send('Performance.enable'); m=lambda: {x['name']:x['value'] for x in cdp.send('Performance.getMetrics')['metrics']}
    a=m(); time.sleep(10); c=m(); print({k:round((c[k]-a[k])/10*1000,2) for k in ('ScriptDuration','LayoutDuration','TaskDuration')})
    cdp.send('Profiler.enable'); cdp.send('Profiler.start'); time.sleep(10); pr=cdp.send('Profiler.stop')['profile']
    st=collections.Counter(); N={n['id']:n for n in pr['nodes']}
    for s,d in zip(pr['samples'],pr['timeDeltas']): f=N[s]['callFrame']; st[(f['functionName'],f['url'].split('/')[-1][:30])]+=d
    for k,v in st.most_common(16): print(round(v/1e4,2),'ms/s',k)
    par={ch:n['id'] for n in pr['nodes'] for ch in n.get('children',[])}
    # contiguous
    runs=[];cur=0
    for s,d in zip(pr['samples'],pr['timeDeltas']):
        if N[s]['callFrame']['functionName'] in('(idle)','(program)'):
            if cur: runs.append(cur); cur=0
        else: cur+=d
    print('longest',sorted([round(r/1000,1) for r in runs],reverse=True)[:12]); b.close()
