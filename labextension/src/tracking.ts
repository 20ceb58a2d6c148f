/**
 * Follow the kernel of every open notebook.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PathExt } from '@jupyterlab/coreutils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import type { INotebook, SessionsModel } from './models/sessions';

export function followNotebooks(
  notebooks: INotebookTracker,
  sessions: SessionsModel,
  shell: JupyterFrontEnd.IShell
): void {
  const follow = (panel: NotebookPanel) => {
    const notebook: INotebook = {
      get title() {
        return PathExt.basename(panel.context.path);
      },
      get path() {
        return panel.context.path;
      },
      reveal: () => shell.activateById(panel.id)
    };
    let leave: (() => void) | null = null;
    const change = () => {
      leave?.();
      const kernel = panel.sessionContext.session?.kernel;
      leave = kernel ? sessions.follow(notebook, kernel) : null;
    };
    panel.sessionContext.kernelChanged.connect(change);
    panel.disposed.connect(() => leave?.());
    change();
  };
  notebooks.forEach(follow);
  notebooks.widgetAdded.connect((_, panel) => follow(panel));
}
