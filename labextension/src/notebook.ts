/**
 * Cells: the one that connects, those that use a model, and how they get into
 * a notebook.
 */
import type { ICodeCell } from '@jupyterlab/nbformat';
import { Notebook, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { MimeData } from '@lumino/coreutils';
import { Drag } from '@lumino/dragdrop';

import { clip } from './models/format';

export const CONNECT = '%load_ext eaf_inference\n%triton_connect';

const CONNECTS = /^\s*%triton_connect\b/m;
/** A cell that is nothing but what is inserted here, with an address or without. */
const OURS = /^%load_ext eaf_inference\n%triton_connect(?: \S+)?\s*$/;
const CELLS = 'application/vnd.jupyter.cells';
/** Pixels that the pointer moves before a press is a drag. */
const THRESHOLD = 5;

/**
 * Run the cell that connects; it is inserted where the notebook has none.
 *
 * With an address, the cell of this extension's making gets it; one that
 * somebody wrote stays as it is, and another is inserted.
 */
export async function connectNotebook(
  panel: NotebookPanel,
  address: string | null = null
): Promise<void> {
  await panel.context.ready;
  await panel.sessionContext.ready;
  const notebook = panel.content;
  const pattern = address === null ? CONNECTS : OURS;
  const at = notebook.widgets.findIndex(
    cell =>
      cell.model.type === 'code' &&
      pattern.test(cell.model.sharedModel.getSource())
  );
  const source = address === null ? CONNECT : `${CONNECT} ${address}`;
  if (at >= 0) {
    notebook.deselectAll();
    notebook.activeCellIndex = at;
    if (address !== null) {
      notebook.widgets[at].model.sharedModel.setSource(source);
    }
  } else {
    insertCell(notebook, source);
  }
  await NotebookActions.run(notebook, panel.sessionContext);
}

/** A code cell below the active one, and active; an empty active cell is used instead. */
export function insertCell(notebook: Notebook, source: string): void {
  const active = notebook.activeCell?.model;
  const isFree =
    active?.type === 'code' && !active.sharedModel.getSource().trim();
  if (!isFree) {
    NotebookActions.insertBelow(notebook);
    NotebookActions.changeCellType(notebook, 'code');
  }
  notebook.activeCell?.model.sharedModel.setSource(source);
  notebook.deselectAll();
}

/** Begin a drag once the pointer has moved; what is dropped is a cell. */
export function dragCell(label: string, source: string, start: PointerEvent) {
  if (start.button !== 0) {
    return;
  }
  const end = () => {
    document.removeEventListener('pointermove', move, true);
    document.removeEventListener('pointerup', end, true);
  };
  const move = (event: PointerEvent) => {
    const { clientX, clientY } = event;
    const distance = Math.max(
      Math.abs(clientX - start.clientX),
      Math.abs(clientY - start.clientY)
    );
    if (distance < THRESHOLD) {
      return;
    }
    end();
    event.preventDefault();
    const drag = new Drag({
      mimeData: cellData(source),
      dragImage: image(label),
      supportedActions: 'copy-move',
      proposedAction: 'copy'
    });
    void drag.start(clientX, clientY).then(() => drag.dispose());
  };
  document.addEventListener('pointermove', move, true);
  document.addEventListener('pointerup', end, true);
}

function cellData(source: string): MimeData {
  const cell: ICodeCell = {
    cell_type: 'code',
    execution_count: null,
    metadata: {},
    outputs: [],
    source
  };
  const data = new MimeData();
  data.setData(CELLS, [cell]);
  data.setData('text/plain', source);
  return data;
}

function image(label: string): HTMLElement {
  const node = document.createElement('div');
  node.className = 'jp-EafInference-drag';
  node.textContent = clip(label, 40);
  return node;
}
