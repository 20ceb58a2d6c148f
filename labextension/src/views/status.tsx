/**
 * The status bar item: the load in a few numbers; a click opens the panel.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { tritonIcon } from '../icon';
import { freshness } from '../models/freshness';
import { LiveModel } from '../models/live';
import { outageOf } from '../models/outage';
import { SessionsModel } from '../models/sessions';
import { statusOf } from '../models/status';

export class StatusItem extends ReactWidget {
  constructor(
    private readonly _live: LiveModel,
    private readonly _sessions: SessionsModel,
    private readonly _open: () => void,
    translator: ITranslator
  ) {
    super();
    this._trans = translator.load('eaf_inference');
    this.addClass('jp-EafInference-status');
    _live.changed.connect(() => this.update(), this);
    _sessions.changed.connect(() => this.update(), this);
  }

  protected render(): JSX.Element {
    const trans = this._trans;
    const outage = outageOf(this._sessions.all, trans);
    const { text, title, level } =
      outage === null
        ? statusOf(this._live.average, this._live.advice, this._note(), trans)
        : { text: outage, title: outage, level: 'saturated' };
    return (
      <button
        type="button"
        data-level={level}
        title={`${title}. ${trans.__('Click for more.')}`}
        onClick={this._open}
      >
        <tritonIcon.react
          tag="span"
          elementPosition="center"
          height="14px"
          width="14px"
        />
        <span>{text}</span>
      </button>
    );
  }

  /** Why there are no current numbers. */
  private _note(): string | null {
    const live = this._live;
    if (!live.isHeld) {
      return this._trans.__(
        'The load is shown while the Triton panel is open or a connected notebook is busy'
      );
    }
    if (live.facility?.state !== 'connected') {
      return this._trans.__('Not connected to a Triton service');
    }
    return freshness(Date.now(), live, this._trans).note;
  }

  private readonly _trans: TranslationBundle;
}
