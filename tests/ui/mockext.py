import asyncio, json, math, time
from pathlib import Path
import tornado.web
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.auth.decorator import ws_authenticated
from tornado.websocket import WebSocketHandler
S = Path('/tmp/w/ui/scenario')
T0 = time.time()
def scenario(): return S.read_text().strip()
def gpu(i, name='NVIDIA A100-SXM4-40GB', profile='2g.20gb', host='ampere-01', t=0, **kw):
    u = min(1, max(0, .6 + .3*math.sin(t/9+i*1.7) + .08*math.cos(t*1.3+i)))
    total = 19968*2**20
    return dict(id=f'GPU-{i}', host=host, name=name, profile=profile, utilization=u, memory_used=total*(.45+.05*(i%8)), memory_total=total, power=96+22*u, tensor=None, dram=None, source='Prometheus') | kw
def load(name, rate, queue, batch, version='1'):
    return dict(name=name, version=version, inferences_per_second=rate, requests_per_second=None if rate is None else (rate/(batch or 1)), failures_per_second=0, batch=batch, queue_ms=queue, compute_ms=12, pending=0, waiting=.2, executing=.5)
HOSTILE = '<img src=x onerror="window.HACKED=1">'
def snapshot(t, sc):
    rel = t - T0
    src = [dict(name='http://prometheus:9090', kind='Prometheus', age=.4, error=None, retry_in=None, left_out=0)]
    snap = dict(time=t, window=5.0, busy=None, gpus=[], models=[], instances=[dict(id='triton-%d'%i,host='h',url=None,up=True,inferences_per_second=1,share=.33,busy=.6,busy_estimated=False) for i in range(3)], hosts=[], sources=src)
    models = [load('particlenet', 11940+400*math.sin(rel/5), 410+30*math.sin(rel/3), 982), load('jet_regression', 820, 3.2, 64), load('bdt_trigger', 0, None, None)]
    if sc in ('mig','stale','srcdead'):
        snap['gpus'] = [gpu(3,t=rel), gpu(4,t=rel)]
    elif sc == 'full':
        snap['gpus'] = [gpu(i, profile=None, t=rel, tensor=.31, dram=.44) for i in range(2)] + [gpu(9, profile=None, host='ampere-02', t=rel, utilization=None, power=None)]
    elif sc in ('many','hostile'):
        snap['gpus'] = [gpu(i, host=f'ampere-{i//8:02d}', profile=None, t=rel) for i in range(64)]
        if sc == 'hostile':
            for g in snap['gpus'][:4]: g['name'] = HOSTILE; g['host'] = 'x'*10000
            models = [load(HOSTILE, 99999, 1, 2)] + [load(f'{"m"*200 if i%9==0 else "model"}_{i}', i, i/10, i) for i in range(499)]
    if sc in ('cpu',):
        models = [load('particlenet', 1640, 12.3, 210), load('jet_regression', 0, None, None)]
        snap['hosts'] = [dict(name='triton-0', cpu_utilization=.58+.2*math.sin(rel/8), memory_used=6.2e9, memory_total=16.5e9)]
        snap['instances'] = snap['instances'][:1]
        snap['busy'] = dict(value=.4, of='compute time', estimated=True)
    if snap['gpus']:
        us=[g['utilization'] for g in snap['gpus'] if g['utilization'] is not None]
        snap['busy'] = dict(value=sum(us)/len(us), of='GPU', estimated=False)
    if sc in ('unmeasured',):
        models=[]; snap['sources']=[]; snap['instances']=[]
    snap['models'] = models
    if sc == 'srcdead':
        src[0].update(error='connection refused', retry_in=4.0, age=14.0); snap['gpus']=[]; snap['models']=[]; snap['busy']=None
    return snap
ADVICE = dict(kind='server bound', title='The server is the limit.', text='Batches are full and requests wait 410 ms. More workers will not help; a fourth instance would.')
ATT = [dict(source='argument', value='', outcome='not given', seconds=None, chosen=False), dict(source='EAF_INFERENCE_URL', value='', outcome='not set', seconds=None, chosen=False), dict(source='facility configuration', value='grpcs://triton.fnal.gov:443', outcome='does not answer: connection refused', seconds=.31, chosen=False), dict(source='Kubernetes service', value='', outcome='not in a cluster', seconds=.002, chosen=False)]
def served(names): return [dict(name=n, version='1', ready=n!='bdt_trigger', state='READY' if n!='bdt_trigger' else 'LOADING', inputs=['points FP32[-1, 2, 100]'], outputs=['softmax FP32[-1, 10]'], queue_ms=None, cell=f'# {n}\nprint("cell of", {n!r})') for n in names]
def facility(sc):
    f = dict(state='connected', problem=None, endpoint=dict(url='grpcs://triton.fnal.gov:443', urls=['grpcs://triton.fnal.gov:443'], source='configuration'), user='alice', identity='alice, expires in 8 min', token_expires_at=time.time()+500, models=served(['particlenet','jet_regression','bdt_trigger']), attempts=ATT, metrics=dict(configured=True, sources=['http://prometheus:9090'], gpu=True), documentation='https://docs.example.org/triton')
    if sc=='cpu': f.update(endpoint=dict(url='grpc://127.0.0.1:8001',urls=[],source='local'), user=None, identity='no token', token_expires_at=None, models=served(['particlenet','jet_regression']))
    if sc=='hostile': f['models']=[]; f['endpoint']['url']='grpc://'+HOSTILE+'y'*9000; f['user']=HOSTILE
    if sc=='unmeasured': f['metrics'].update(configured=False, gpu=None, sources=[])
    bad = {'no-facility': 'No Triton service was found: 4 places were tried. Ask your facility for its address, or start one with "eaf-inference up".', 'unreachable':'grpcs://triton.fnal.gov:443 does not answer (connection refused). It may be restarting.', 'not-authorised':'triton.fnal.gov does not accept your token: it expired 2 min ago. Log in again.', 'misconfigured':'/etc/jupyter/eaf_inference_config.py line 3: triton_url "htp://x" is not grpc://host:port.'}
    if sc in bad: f.update(state=sc, problem=bad[sc], models=[], endpoint=f['endpoint'] if sc in('unreachable','not-authorised') else None)
    if sc=='no-facility': f.update(user=None, identity='', documentation='')
    return f
class H(APIHandler):
    @tornado.web.authenticated
    def get(self, what):
        sc = scenario()
        if sc == 'missing': raise tornado.web.HTTPError(404)
        if what=='facility': self.finish(facility(sc))
        elif what=='clusters':
            c=[dict(name='eaf.3f2a91c0', status='running', workers=8, configured=8, inferences_per_second=4120, oldest_token=485, dashboard='https://gw/x'), dict(name='eaf.77aa', status='pending', workers=None, configured=None, inferences_per_second=None, oldest_token=None, dashboard='javascript:alert(1)')]
            self.finish(dict(clusters=[] if sc in('cpu',) else c, problem=None))
        else:
            sec=int(float(self.get_argument('seconds','600'))); now=time.time()
            self.finish(dict(interval=1.0, snapshots=[snapshot(now-s, sc) for s in range(sec,0,-1)] if sc not in ('srcdead',) else [], advice=ADVICE))
class W(WebSocketMixin, WebSocketHandler, JupyterHandler):
    @ws_authenticated
    async def get(self, *a, **k):
        if scenario() in ('missing','noserver'): raise tornado.web.HTTPError(404)
        r = super().get(*a, **k)
        if hasattr(r,'__await__'): await r
    def open(self):
        super().open(); self.iv=1.0; self.alive=True
        asyncio.get_event_loop().create_task(self.run())
    def on_message(self, m): self.iv=max(.2,json.loads(m)['interval'])
    def on_close(self): self.alive=False; super().on_close()
    async def run(self):
        last=None
        while self.alive:
            sc=scenario()
            try:
                if sc=='stale': await asyncio.sleep(.5); continue
                if sc=='noserver': self.close(); return
                if sc!=last: last=sc; await self.write_message(json.dumps(dict(type='facility',facility=facility(sc))))
                if sc in('no-facility','unreachable','not-authorised','misconfigured'): await asyncio.sleep(.5); continue
                s=snapshot(time.time(), sc)
                await self.write_message(json.dumps(dict(type='snapshot', snapshot=s, minute=s, advice=ADVICE if sc not in('cpu',) else dict(kind='balanced', title='The server is well used.', text='With batches as they are, it carries about 1.6 times this load.'))))
            except Exception: return
            await asyncio.sleep(self.iv)
def _load_jupyter_server_extension(app):
    b=app.web_app.settings['base_url'].rstrip('/')
    app.web_app.add_handlers('.*',[(b+r'/eaf-inference/api/(facility|clusters|history)',H),(b+'/eaf-inference/api/stream',W)])
def _jupyter_server_extension_points(): return [{'module':'mockext'}]
