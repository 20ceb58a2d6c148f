// Draws the page's mermaid diagrams, and draws them again when the reader switches between light and dark.
const sources = new Map();

async function draw() {
  const dark = document.documentElement.dataset.theme === 'dark';
  mermaid.initialize({
    startOnLoad: false,
    theme: dark ? 'dark' : 'neutral',
    flowchart: {
      wrappingWidth: 400,
      nodeSpacing: 30,
      rankSpacing: 30,
      subGraphTitleMargin: { top: 4, bottom: 12 }
    },
    sequence: { width: 105, actorMargin: 15, messageMargin: 25, wrap: true }
  });
  for (const [element, source] of sources) {
    element.removeAttribute('data-processed');
    element.textContent = source;
  }
  await mermaid.run({ nodes: [...sources.keys()] });
}

window.addEventListener('DOMContentLoaded', () => {
  for (const block of document.querySelectorAll('.diagram pre')) {
    const source = block.textContent;
    const element = document.createElement('div');
    element.className = 'mermaid';
    block.closest('.diagram').replaceChildren(element);
    sources.set(element, source);
  }
  draw();
  new MutationObserver(draw).observe(document.documentElement, {
    attributeFilter: ['data-theme']
  });
});
