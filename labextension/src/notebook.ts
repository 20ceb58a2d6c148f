/**
 * Insert cells into a notebook: the cell that connects, and cells that call a model.
 */
import type { ICodeCell } from '@jupyterlab/nbformat';
import { Notebook, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { MimeData } from '@lumino/coreutils';
import { Drag } from '@lumino/dragdrop';

import { clip } from './models/format';

const CONNECT = '%load_ext eaf_inference\n%triton_connect';

const CONNECTS = /^\s*%triton_connect\b/m;
/** A whole cell that was inserted here, with or without an address. */
const OURS = /^%load_ext eaf_inference\n%triton_connect(?: \S+)?\s*$/;
const CELLS = 'application/vnd.jupyter.cells';
/** Pixels of movement after which a press becomes a drag. */
const THRESHOLD = 5;

/**
 * Run the cell that connects, or insert one.
 *
 * With an address, a cell that this extension inserted is changed. A cell that the
 * user wrote stays as it is, and another one is inserted.
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

/** Insert a code cell below the active one and activate it; an empty active cell is used instead. */
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

/** Start to drag a cell once the pointer has moved. */
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
