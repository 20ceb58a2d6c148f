/**
 * Dialogs that ask for confirmation before a cluster is changed.
 */
import { Dialog, InputDialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ClusterChanges } from './models/changes';
import type { IKnownCluster } from './models/clusters';

const MOST_WORKERS = 10000;

export async function scaleCluster(
  cluster: IKnownCluster,
  changes: ClusterChanges,
  trans: TranslationBundle
): Promise<void> {
  const { name, label, workers } = cluster;
  const { button, value } = await InputDialog.getNumber({
    title: trans.__('Scale cluster %1', label),
    label:
      workers === null
        ? trans.__('Number of workers. This ends adaptive scaling.')
        : trans.__(
            'Number of workers (%1 now). This ends adaptive scaling.',
            workers
          ),
    value: workers ?? 0,
    okLabel: trans.__('Scale'),
    cancelLabel: trans.__('Cancel')
  });
  if (!button.accept) {
    return;
  }
  if (
    value === null ||
    !Number.isInteger(value) ||
    value < 0 ||
    value > MOST_WORKERS
  ) {
    await showDialog({
      title: trans.__('The cluster was not scaled'),
      body: trans.__('Expected a whole number from 0 to %1.', MOST_WORKERS),
      buttons: [Dialog.okButton({ label: trans.__('Close') })]
    });
    return;
  }
  await changes.scale(name, value);
}

export async function shutDownCluster(
  cluster: IKnownCluster,
  changes: ClusterChanges,
  trans: TranslationBundle
): Promise<void> {
  const { name, label, workers, notebooks } = cluster;
  const body = [
    workers === null
      ? trans.__('Its workers stop, and their running tasks are lost.')
      : trans._n(
          'Its %1 worker stops, and its running tasks are lost.',
          'Its %1 workers stop, and their running tasks are lost.',
          workers,
          workers
        ),
    notebooks.length ? trans.__('It is used by %1.', notebooks.join(', ')) : ''
  ];
  const { button } = await showDialog({
    title: trans.__('Shut down cluster %1?', label),
    body: body.filter(Boolean).join(' '),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: trans.__('Shut down') })
    ],
    defaultButton: 0
  });
  if (button.accept) {
    await changes.shutDown(name);
  }
}
