/**
 * Commands: connect a notebook, open a connected one, show the panel.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { ILauncher } from '@jupyterlab/launcher';
import type { INotebookTracker } from '@jupyterlab/notebook';
import { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { dashboardPicture, tritonIcon, tritonPicture } from './icon';
import { isAddress } from './models/address';
import { VIEWS } from './models/dashboard';
import { connectNotebook } from './notebook';

export const Commands = {
  connect: 'eaf-inference:connect',
  create: 'eaf-inference:new-notebook',
  open: 'eaf-inference:open',
  dashboard: 'eaf-inference:open-dashboard'
} as const;

const URL = {
  type: 'string',
  description: 'Address of a Triton server; by default it is discovered'
};

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
      'Connect this notebook to Triton: insert %triton_connect and run it'
    ),
    icon: tritonIcon,
    isEnabled: () => notebooks.currentWidget !== null,
    describedBy: { args: { type: 'object', properties: { url: URL } } },
    execute: async args => {
      if (notebooks.currentWidget) {
        await connectNotebook(notebooks.currentWidget, addressIn(args));
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
          cwd: { type: 'string' },
          url: URL
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
        await connectNotebook(panel, addressIn(args));
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
  const category = trans.__('Triton');
  for (const command of [Commands.connect, Commands.create, Commands.open]) {
    palette?.addItem({ command, category });
  }
  for (const view of VIEWS) {
    const command = Commands.dashboard;
    palette?.addItem({ command, category, args: { view } });
  }
  launcher?.add({
    command: Commands.create,
    category: trans.__('Notebook'),
    kernelIconUrl: tritonPicture,
    rank: 10
  });
  launcher?.add({
    command: Commands.dashboard,
    category: trans.__('Other'),
    kernelIconUrl: dashboardPicture,
    rank: 10
  });
}

/** The address in a command's arguments, validated because it comes from any extension and becomes code. */
function addressIn(args: ReadonlyPartialJSONObject): string | null {
  const { url } = args;
  if (url === undefined) {
    return null;
  }
  const address = typeof url === 'string' ? url.trim() : '';
  if (!isAddress(address)) {
    throw new Error(
      `${JSON.stringify(url)} is not a server address. Expected grpcs://host:443 or grpc://host:8001.`
    );
  }
  return address;
}

/** The default kernel if it runs Python, else the first one that does. */
function pythonKernel(app: JupyterFrontEnd): string {
  const specs = app.serviceManager.kernelspecs.specs;
  const isPython = (name: string) =>
    specs?.kernelspecs[name]?.language?.toLowerCase() === 'python';
  const usual = specs?.default ?? '';
  return isPython(usual)
    ? usual
    : (Object.keys(specs?.kernelspecs ?? {}).find(isPython) ?? usual);
}
