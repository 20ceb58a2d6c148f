/**
 * A widget that needs live data only while it is on the screen: the panel, and
 * each tab of the dashboard.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import { ISignal } from '@lumino/signaling';
import React from 'react';

import { Language } from './parts';

export abstract class LiveWidget extends ReactWidget {
  /** Parameters: the translator; signals after which the content may differ. */
  constructor(translator: ITranslator, signals: ISignal<unknown, void>[]) {
    super();
    this.trans = translator.load('eaf_inference');
    this.addClass('jp-EafInference');
    this.node.tabIndex = -1;
    signals.forEach(signal => signal.connect(this._show, this));
  }

  /**
   * Hold the models that are shown while the widget is, or release them. The
   * clusters are wanted only while the browser tab is visible too, so that a
   * hidden one does not keep asking the user's gateway.
   */
  protected abstract hold(isShown: boolean, wantsClusters: boolean): void;

  protected abstract content(): JSX.Element;

  /** Hold what is shown now. */
  protected holdAgain(): void {
    this.hold(
      this._isShown,
      this._isShown && document.visibilityState === 'visible'
    );
    this._show();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    document.addEventListener('visibilitychange', this._onVisibility);
    this._setShown(this.isVisible);
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._setShown(true);
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._setShown(false);
  }

  protected override onBeforeDetach(message: Message): void {
    this._setShown(false);
    document.removeEventListener('visibilitychange', this._onVisibility);
    super.onBeforeDetach(message);
  }

  protected override onActivateRequest(): void {
    this.node.focus();
  }

  protected render(): JSX.Element {
    return (
      <Language.Provider value={this.trans}>{this.content()}</Language.Provider>
    );
  }

  protected readonly trans: TranslationBundle;

  private _setShown(isShown: boolean): void {
    this._isShown = isShown;
    this.holdAgain();
  }

  private _show(): void {
    if (this.isVisible) {
      this.update();
    }
  }

  private readonly _onVisibility = (): void => this.holdAgain();
  private _isShown = false;
}
