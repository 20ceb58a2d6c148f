/**
 * The wiring: models, the panel, the status bar item, commands, settings.
 */
import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';

import { Api } from './api';
import { scaleCluster, shutDownCluster } from './clusters';
import { Commands, addCommands, listCommands } from './commands';
import { addDashboards } from './dashboards';
import { ClusterChanges } from './models/changes';
import { DashboardModel } from './models/dashboard';
import { LiveModel } from './models/live';
import { SessionsModel } from './models/sessions';
import { readSettings } from './models/settings';
import { UsageModel } from './models/usage';
import { dragCell, insertCell } from './notebook';
import { Stream } from './stream';
import { followNotebooks } from './tracking';
import { IClusterActions } from './views/clusters';
import { IPanelActions, Panel } from './views/panel';
import { StatusItem } from './views/status';

const ID = 'eaf-inference:plugin';

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description:
    'Shows the load of a shared Triton server: GPUs, queue and models.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [
    ICommandPalette,
    ILauncher,
    ILayoutRestorer,
    ISettingRegistry,
    IStatusBar,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    restorer: ILayoutRestorer | null,
    registry: ISettingRegistry | null,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ) => {
    translator ??= nullTranslator;
    const trans = translator.load('eaf_inference');
    const { commands, shell } = app;

    const api = new Api(app.serviceManager.serverSettings);
    const live = new LiveModel(api, new Stream(() => api.openStream()));
    const usage = new UsageModel(api);
    const dashboard = new DashboardModel(api, live);
    const sessions = new SessionsModel();
    followNotebooks(notebooks, sessions, shell);

    let settings = readSettings({});
    const changed = new Signal<object, void>({});
    notebooks.currentChanged.connect(() => changed.emit());

    const actions: IPanelActions = {
      connect: url =>
        void commands.execute(
          notebooks.currentWidget ? Commands.connect : Commands.create,
          url === undefined ? {} : { url }
        ),
      offer: () => {
        const current = notebooks.currentWidget;
        if (!current) {
          return { label: trans.__('New Triton notebook') };
        }
        return sessions.isConnected(current.context.path)
          ? null
          : { label: trans.__('Connect this notebook') };
      },
      drag: (row, event) =>
        row.cell && dragCell(row.name, row.cell, event.nativeEvent),
      insert: ({ cell }) => {
        const notebook = notebooks.currentWidget?.content;
        if (notebook && cell) {
          insertCell(notebook, cell);
          notebook.activate();
        }
      },
      open: url => void window.open(url, '_blank', 'noopener'),
      dashboard: () => void commands.execute(Commands.dashboard),
      reload: () => window.location.reload()
    };

    const changes = new ClusterChanges(api);
    const clusters: IClusterActions = {
      changes,
      scale: cluster => void scaleCluster(cluster, changes, trans),
      shutDown: cluster => void shutDownCluster(cluster, changes, trans)
    };

    const panel = new Panel({
      live,
      sessions,
      usage,
      clusters,
      actions,
      settings: () => settings,
      changed,
      translator
    });
    shell.add(panel, 'right', { rank: 600, type: 'Triton' });
    restorer?.add(panel, panel.id);
    addCommands(app, notebooks, panel.id, trans);
    addDashboards(
      app,
      restorer,
      {
        model: dashboard,
        sessions,
        usage,
        clusters,
        actions,
        changed,
        translator
      },
      trans
    );
    listCommands(palette, launcher, trans);

    // The status bar is live while the panel is, or while a connected notebook computes.
    statusBar?.registerStatusItem(ID, {
      item: new StatusItem(
        live,
        sessions,
        () => void commands.execute(Commands.open),
        translator
      ),
      align: 'right',
      rank: 20,
      isActive: () => settings.statusBar,
      activeStateChanged: changed
    });
    sessions.changed.connect(() => {
      live.hold('notebooks', settings.statusBar && sessions.isBusy);
      // a kernel may have found a facility that the server has not looked for yet
      if (live.isHeld && live.facility?.state === 'no-facility') {
        void live.refresh();
      }
    });

    void registry
      ?.load(ID)
      .then(loaded => {
        const read = () => {
          settings = readSettings(loaded.composite);
          live.configure(settings.interval, settings.window);
          changed.emit();
        };
        loaded.changed.connect(read);
        read();
      })
      .catch(console.error);
  }
};

export default plugin;
