/**
 * The front end of the notebook widget, for anywidget: the state of the service
 * and the work of this kernel.
 *
 * It shows the traits that the kernel sets, and reports nothing but its presence.
 * It uses plain elements instead of React, because the same file runs in
 * JupyterLab, Notebook 7 and VS Code.
 */
import type { AnyModel, Render } from '@anywidget/types';

import type {
  IGpu,
  ISession,
  ISnapshot,
  IWidgetPoint,
  IWidgetPresence,
  IWidgetTraits
} from './api';
import { Chart } from './chart';
import {
  clip,
  duration,
  hostOf,
  mean,
  memory,
  number,
  percent,
  share
} from './models/format';
import { gpuRows, lacksGpus } from './models/gpus';
import { Columns, columns } from './models/history';
import { liveness, Presence } from './models/presence';
import { queueOf, rateOf } from './models/status';
import plotStyle from 'uplot/dist/uPlot.min.css';

import style from './widget.css';

const TRAITS = [
  'average',
  'history',
  'advice',
  'session',
  'state',
  'problem'
] as const;
const WINDOW = 120;
const GPUS = 8;

/** "1 jet", "1,234 jets". */
const count = (value: number | null | undefined, unit: string) =>
  `${number(value)} ${unit}${value === 1 ? '' : 's'}`;
const milliseconds = (value: number | null) =>
  value === null ? number(value) : `${number(value)} ms`;
const jets = (value: number | null) =>
  value === null ? number(value) : `${number(value)} jets/s`;

function make(
  tag: string,
  className: string,
  parent: HTMLElement
): HTMLElement {
  const node = document.createElement(tag);
  node.className = className;
  parent.appendChild(node);
  return node;
}

/** A chart of one line, with a text above it. */
class Pane {
  constructor(
    parent: HTMLElement,
    private readonly _name: string,
    scale: 'fraction' | 'own',
    format: (value: number | null) => string
  ) {
    const node = make('div', '', parent);
    const line = make('div', 'eaf-line', node);
    this._title = make('span', 'eaf-quiet', line);
    this._value = make('span', '', line);
    this._node = make('div', 'eaf-chart', node);
    this._node.setAttribute('role', 'img');
    this._chart = new Chart(this._node, {
      height: 44,
      lines: [{ colour: 'normal', fill: 0.15, scale }],
      hover: ([value]) => format(value)
    });
  }

  show(value: string, data: Columns, name = this._name): void {
    this._title.textContent = name;
    this._value.textContent = value;
    this._node.setAttribute(
      'aria-label',
      `${name} in the last ${duration(WINDOW)}, now ${value}`
    );
    this._chart.update(data, WINDOW);
  }

  dispose(): void {
    this._chart.dispose();
  }

  private readonly _title: HTMLElement;
  private readonly _value: HTMLElement;
  private readonly _node: HTMLElement;
  private readonly _chart: Chart;
}

class View {
  constructor(
    private readonly _model: AnyModel<IWidgetTraits>,
    parent: HTMLElement
  ) {
    make('style', '', parent).textContent =
      `.eaf-widget { ${plotStyle} }\n${style}`; // nested, as the page may have other charts
    this._node = make('div', 'eaf-widget', parent);
    this._node.setAttribute('role', 'group');
    this._node.setAttribute('aria-label', 'Triton');
    const head = make('div', 'eaf-line', this._node);
    this._title = make('span', 'eaf-title', head);
    this._when = make('span', 'eaf-quiet', head);
    const charts = make('div', 'eaf-charts', this._node);
    this._busy = new Pane(charts, 'Busy', 'fraction', percent);
    this._queue = new Pane(charts, 'Queue', 'own', milliseconds);
    this._rate = new Pane(charts, 'This notebook', 'own', jets);
    const line = make('div', 'eaf-line', this._node);
    this._work = make('span', '', line);
    this._done = make('span', 'eaf-quiet', line);
    this._bar = make('div', 'eaf-bar', this._node);
    this._bar.setAttribute('role', 'progressbar');
    this._bar.setAttribute('aria-label', 'Progress');
    this._filled = make('div', '', this._bar);
    this._gpus = make('ul', 'eaf-gpus', this._node);
    this._figures = make('div', 'eaf-quiet eaf-figures', this._node);
    this._advice = make('p', 'eaf-advice', this._node);
    for (const trait of TRAITS) {
      this._model.on(`change:${trait}`, this._changed);
    }
    this._model.on('msg:custom', this._received);
    document.addEventListener('visibilitychange', this._visible);
    this._ticking = setInterval(() => this._tick(), 1000);
    this._draw();
    this._presence.come();
  }

  dispose(): void {
    for (const trait of TRAITS) {
      this._model.off(`change:${trait}`, this._changed);
    }
    this._model.off('msg:custom', this._received);
    document.removeEventListener('visibilitychange', this._visible);
    clearInterval(this._ticking);
    this._presence.go();
    [this._busy, this._queue, this._rate].forEach(pane => pane.dispose());
  }

  /** Draw once for several traits that change together. */
  private readonly _changed = () => {
    this._presence.hear(Date.now());
    if (!this._pending) {
      this._pending = true;
      queueMicrotask(() => {
        this._pending = false;
        this._draw();
      });
    }
  };

  private readonly _received = (message: unknown) => {
    this._presence.hear(Date.now(), message);
    this._showState();
  };

  private readonly _visible = () => this._presence.come();

  private _tick(): void {
    if (this._model.get('state') === 'live') {
      this._presence.call(Date.now());
    }
    this._showState();
  }

  private _draw(): void {
    const average = this._model.get('average');
    const session = this._model.get('session');
    const history = this._model.get('history') ?? [];
    const advice = this._model.get('advice');
    this._title.textContent = session?.endpoint
      ? hostOf(session.endpoint)
      : 'Triton';
    this._showCharts(average, history, session);
    this._showSession(session);
    this._showGpus(average);
    this._showFigures(average);
    this._advice.hidden = !advice;
    this._advice.textContent = advice
      ? clip(`${advice.title} ${advice.text}`, 600)
      : '';
    this._showState();
  }

  private _showCharts(
    average: ISnapshot | null,
    history: IWidgetPoint[],
    session: ISession | null
  ): void {
    const last = history[history.length - 1];
    const line = (value: (point: IWidgetPoint) => number | null) =>
      columns(history, [value], 2);
    const busy = average?.busy;
    const estimate = busy?.estimated ? ' (est.)' : '';
    this._busy.show(
      percent(busy?.value ?? last?.busy),
      line(point => point.busy),
      busy
        ? `${busy.of[0].toUpperCase()}${busy.of.slice(1)}${estimate}`
        : 'Busy'
    );
    const queue = average && queueOf(average);
    this._queue.show(
      milliseconds(queue),
      line(point => point.queue_ms)
    );
    const rate = session?.inferences_per_second ?? null;
    this._rate.show(
      jets(rate),
      line(point => point.inferences_per_second)
    );
  }

  private _showSession(session: ISession | null): void {
    const progress = share(session?.done, session?.total);
    const label: string = session?.label ? clip(session.label) : '';
    const retrying = session?.retrying;
    const outage = retrying
      ? `${clip(retrying.reason, 60)}, retrying, ${number(retrying.left)} s left`
      : '';
    this._work.textContent = session?.busy
      ? [label, progress === null ? '' : percent(progress), outage]
          .filter(Boolean)
          .join(' · ') || 'computing'
      : 'idle';
    this._work.classList.toggle('eaf-warning', outage !== '');
    const unit = session?.unit ?? 'jet';
    const done =
      progress === null
        ? `${count(session?.inferences, 'jet')} so far`
        : `${number(session?.done)} of ${count(session?.total, unit)}`;
    const lost =
      progress === null || unit === 'jet'
        ? number(session?.not_finite)
        : count(session?.not_finite, 'jet');
    this._done.textContent = [
      done,
      session?.failed ? ` · ${number(session.failed)} failed` : '',
      session?.not_finite ? `, ${lost} with NaN or infinite scores` : '',
      typeof session?.left === 'number'
        ? ` · ${duration(session.left)} left`
        : ''
    ].join('');
    this._bar.hidden = progress === null;
    const part = Math.round(100 * (progress ?? 0));
    this._bar.setAttribute('aria-valuenow', `${part}`);
    this._filled.style.width = `${part}%`;
  }

  private _showGpus(average: ISnapshot | null): void {
    const gpus: IGpu[] = average?.gpus ?? [];
    const lines: [string, string][] = gpuRows(gpus.slice(0, GPUS)).map(gpu => [
      gpu.label,
      `${percent(gpu.utilization)} · ${memory(gpu.memory_used, gpu.memory_total)}`
    ]);
    if (average && !gpus.length) {
      const cpu = mean(average.hosts.map(host => host.cpu_utilization));
      const known = [
        lacksGpus(average) ? 'No GPU reported by this server' : '',
        cpu === null ? '' : `CPU ${percent(cpu)}`
      ].filter(Boolean);
      if (known.length) {
        lines.push([known.join(' · '), '']);
      }
    }
    if (gpus.length > GPUS) {
      lines.push([`and ${gpus.length - GPUS} more`, '']);
    }
    while (this._gpus.children.length > lines.length) {
      this._gpus.lastElementChild?.remove();
    }
    lines.forEach(([name, value], index) => {
      let item = this._gpus.children[index] as HTMLElement | undefined;
      if (!item) {
        item = make('li', 'eaf-line', this._gpus);
        make('span', '', item);
        make('span', 'eaf-quiet', item);
      }
      item.title = name;
      item.children[0].textContent = name;
      item.children[1].textContent = value;
    });
    this._gpus.hidden = !lines.length;
  }

  /** The throughput of all users, and the period of the figures. */
  private _showFigures(average: ISnapshot | null): void {
    const rate = average && rateOf(average);
    this._figures.hidden = !average || !!this._model.get('problem');
    this._figures.textContent = [
      typeof rate === 'number' ? `all users ${number(rate)} jets/s` : '',
      `figures of the last ${duration(Math.max(1, average?.window ?? 0))}`
    ]
      .filter(Boolean)
      .join(' · ');
  }

  private _showState(): void {
    const time = this._model.get('average')?.time;
    const { state, text } = liveness({
      stopped: this._model.get('state') === 'stopped',
      problem: clip(this._model.get('problem') ?? '', 300),
      isHeard: this._presence.isHeard,
      silence: this._presence.silence(Date.now()),
      at: time ? new Date(time * 1000).toLocaleString() : ''
    });
    this._node.dataset.state = state;
    this._when.textContent = text;
  }

  /** Send to the kernel, if there is one. */
  private _send(message: IWidgetPresence): void {
    try {
      this._model.send(message);
    } catch (error) {
      console.debug('The Triton widget has no kernel to send to.', error);
    }
  }

  private readonly _presence = new Presence(
    message => this._send(message),
    () => document.visibilityState === 'visible',
    Date.now()
  );
  private _pending = false;
  private readonly _node: HTMLElement;
  private readonly _title: HTMLElement;
  private readonly _when: HTMLElement;
  private readonly _busy: Pane;
  private readonly _queue: Pane;
  private readonly _rate: Pane;
  private readonly _work: HTMLElement;
  private readonly _done: HTMLElement;
  private readonly _bar: HTMLElement;
  private readonly _filled: HTMLElement;
  private readonly _gpus: HTMLElement;
  private readonly _figures: HTMLElement;
  private readonly _advice: HTMLElement;
  private readonly _ticking: ReturnType<typeof setInterval>;
}

const render: Render<IWidgetTraits> = ({ model, el }) => {
  const view = new View(model, el);
  return () => view.dispose();
};

export default { render };
