def ready(page):
    page.evaluate("async()=>{const s=window.jupyterapp.shell.currentWidget.context.sessionContext; await s.ready; for(let i=0;i<100&&s.session?.kernel?.status!=='idle';i++) await new Promise(r=>setTimeout(r,100));}")
def run_cell(page, src):
    page.evaluate("""async src=>{const nb=window.jupyterapp.shell.currentWidget.content; await window.jupyterapp.commands.execute('notebook:move-cursor-down'); nb.activeCellIndex=nb.widgets.length-1; await window.jupyterapp.commands.execute('notebook:insert-cell-below'); nb.activeCell.model.sharedModel.setSource(src); window.jupyterapp.commands.execute('notebook:run-cell');}""", src)
