/**
 * What the user can do: connect a notebook, open a new one, show the panel.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { ILauncher } from '@jupyterlab/launcher';
import type { INotebookTracker } from '@jupyterlab/notebook';
import { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';

import { tritonIcon, tritonPicture } from './icon';
import { connectNotebook } from './notebook';

export const Commands = {
  connect: 'eaf-inference:connect',
  create: 'eaf-inference:new-notebook',
  open: 'eaf-inference:open'
} as const;

export function addCommands(
  app: JupyterFrontEnd,
  notebooks: INotebookTracker,
  panelId: string,
  trans: TranslationBundle
): void {
  const { commands, serviceManager, shell } = app;
  commands.addCommand(Commands.connect, {
    label: trans.__('Connect this notebook to Triton'),
    caption: trans.__(
      'Connect this notebook to Triton: insert %triton_connect, and run it'
    ),
    icon: tritonIcon,
    isEnabled: () => notebooks.currentWidget !== null,
    describedBy: { args: { type: 'object', properties: {} } },
    execute: async () => {
      if (notebooks.currentWidget) {
        await connectNotebook(notebooks.currentWidget);
      }
    }
  });
  notebooks.currentChanged.connect(() =>
    commands.notifyCommandChanged(Commands.connect)
  );
  commands.addCommand(Commands.create, {
    label: trans.__('New Triton notebook'),
    caption: trans.__('Open a new notebook that is connected to Triton'),
    icon: tritonIcon,
    describedBy: {
      args: {
        type: 'object',
        properties: {
          cwd: { type: 'string' }
        }
      }
    },
    execute: async args => {
      await serviceManager.kernelspecs.ready;
      const panel: unknown = await commands.execute('notebook:create-new', {
        activate: true,
        cwd: args['cwd'] ?? '',
        kernelName: pythonKernel(app)
      });
      if (panel instanceof NotebookPanel) {
        await connectNotebook(panel);
      }
    }
  });
  commands.addCommand(Commands.open, {
    label: trans.__('Show the Triton panel'),
    icon: tritonIcon,
    describedBy: { args: { type: 'object', properties: {} } },
    execute: () => shell.activateById(panelId)
  });
}

export function listCommands(
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  trans: TranslationBundle
): void {
  for (const command of Object.values(Commands)) {
    palette?.addItem({ command, category: trans.__('Triton') });
  }
  launcher?.add({
    command: Commands.create,
    category: trans.__('Notebook'),
    kernelIconUrl: tritonPicture,
    rank: 10
  });
}

/** The default kernel if it speaks Python, else the first that does. */
function pythonKernel(app: JupyterFrontEnd): string {
  const specs = app.serviceManager.kernelspecs.specs;
  const speaks = (name: string) =>
    specs?.kernelspecs[name]?.language?.toLowerCase() === 'python';
  const usual = specs?.default ?? '';
  return speaks(usual)
    ? usual
    : (Object.keys(specs?.kernelspecs ?? {}).find(speaks) ?? usual);
}
