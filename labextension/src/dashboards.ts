/**
 * The dashboard's tabs: opened by a command, one for each view, and brought
 * back with JupyterLab's layout. Their content is loaded with the first.
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

  /** Beside the whole dashboard, and then among those that are there. */
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
        const made: Tab = new MainAreaWidget({ content });
        made.id = nameOf(view);
        made.toolbar.hide();
        made.title.label = titleOf(view, trans);
        made.title.icon = dashboardIcon;
        content.rangeChanged.connect(() => void tracker.save(made));
        await tracker.add(made);
        shell.add(made, 'main', { ...place(view), type: 'Triton' });
        if (!restorer && !made.isAttached) {
          shell.add(made, 'right'); // Notebook 7 has a notebook in its main area, and nothing else
        }
        tab = made;
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
