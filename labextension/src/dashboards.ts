/**
 * The dashboard's tabs: one per view, opened by a command and restored with
 * JupyterLab's layout. Their code is loaded with the first tab.
 */
import type { ILayoutRestorer, JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { DockLayout } from '@lumino/widgets';

import { Commands } from './commands';
import { dashboardIcon } from './icon';
import { RANGES, VIEWS, View, readRange, readView } from './models/dashboard';
import type { Dashboard, IDashboardOptions } from './views/dashboard/dashboard';

type Tab = MainAreaWidget<Dashboard>;

const nameOf = (view: View) => `eaf-inference-dashboard-${view}`;

export function addDashboards(
  app: JupyterFrontEnd,
  restorer: ILayoutRestorer | null,
  options: Omit<IDashboardOptions, 'open'>,
  trans: TranslationBundle
): void {
  const { commands, shell } = app;
  const tracker = new WidgetTracker<Tab>({
    namespace: 'eaf-inference-dashboard'
  });
  const open = (view: View) =>
    void commands.execute(Commands.dashboard, { view });

  /** Beside the whole dashboard, or after the other tabs beside it. */
  const place = (
    view: View
  ): { mode?: DockLayout.InsertMode; ref?: string } => {
    const tabs = tracker.filter(tab => tab.isAttached);
    const part = tabs.find(tab => tab.content.view !== 'all');
    const whole = tabs.find(tab => tab.content.view === 'all');
    if (view === 'all' || !(part ?? whole)) {
      return {};
    }
    return part
      ? { mode: 'tab-after', ref: part.id }
      : { mode: 'split-right', ref: whole?.id };
  };

  commands.addCommand(Commands.dashboard, {
    label: args =>
      args['view'] === undefined
        ? trans.__('Open the Triton dashboard')
        : labelOf(readView(args['view']), trans),
    caption: trans.__(
      'GPUs, queue, models, clusters and usage over up to an hour'
    ),
    icon: dashboardIcon,
    describedBy: {
      args: {
        type: 'object',
        properties: {
          view: { type: 'string', enum: [...VIEWS] },
          range: { type: 'number', enum: [...RANGES] }
        }
      }
    },
    execute: async args => {
      const view = readView(args['view']);
      const { Dashboard } = await import('./views/dashboard/dashboard');
      const { titleOf } = await import('./views/dashboard/head');
      let tab = tracker.find(each => each.content.view === view);
      if (!tab) {
        const content = new Dashboard(view, readRange(args['range']), {
          ...options,
          open
        });
        const created: Tab = new MainAreaWidget({ content });
        created.id = nameOf(view);
        created.toolbar.hide();
        created.title.label = titleOf(view, trans);
        created.title.icon = dashboardIcon;
        content.rangeChanged.connect(() => void tracker.save(created));
        await tracker.add(created);
        shell.add(created, 'main', { ...place(view), type: 'Triton' });
        if (!restorer && !created.isAttached) {
          shell.add(created, 'right'); // Notebook 7 allows nothing but the notebook in its main area
        }
        tab = created;
      }
      shell.activateById(tab.id);
      return tab;
    }
  });
  void restorer?.restore(tracker, {
    command: Commands.dashboard,
    args: ({ content }) => ({ view: content.view, range: content.range }),
    name: ({ content }) => content.view
  });
}

function labelOf(view: View, trans: TranslationBundle): string {
  return {
    all: trans.__('Open the Triton dashboard'),
    gpus: trans.__('Open the Triton dashboard: GPUs'),
    queue: trans.__('Open the Triton dashboard: queue'),
    models: trans.__('Open the Triton dashboard: models'),
    clusters: trans.__('Open the Triton dashboard: my clusters'),
    usage: trans.__('Open the Triton dashboard: my usage')
  }[view];
}
