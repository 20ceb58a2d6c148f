// JupyterLab's own configuration (its extension template), and no `any`.
import js from '@eslint/js';
import jupyter from '@jupyter/eslint-plugin';
import prettier from 'eslint-plugin-prettier/recommended';
import { defineConfig } from 'eslint/config';
import globals from 'globals';
import typescript from 'typescript-eslint';

export default defineConfig([
  {
    ignores: [
      '.venv*',
      'build',
      'dist',
      'eaf_inference',
      'labextension/lib',
      'node_modules',
      '**/*.js',
      '**/*.mjs',
      '**/*.d.ts'
    ]
  },
  js.configs.recommended,
  typescript.configs.recommended,
  { plugins: { jupyter } },
  jupyter.configs.recommended,
  {
    files: ['**/*.ts', '**/*.tsx'],
    languageOptions: {
      globals: globals.browser,
      parserOptions: {
        project: 'labextension/tests/tsconfig.json',
        sourceType: 'module'
      }
    },
    rules: {
      '@typescript-eslint/naming-convention': [
        'error',
        {
          selector: 'interface',
          format: ['PascalCase'],
          custom: { regex: '^I[A-Z]', match: true }
        }
      ],
      '@typescript-eslint/no-unused-vars': ['warn', { args: 'none' }],
      '@typescript-eslint/no-floating-promises': 'error',
      curly: ['error', 'all'],
      eqeqeq: 'error',
      'prefer-arrow-callback': ['error', { allowNamedFunctions: true }]
    }
  },
  {
    // the sidebar is there from the start, and all of it is small
    files: ['labextension/src/index.ts'],
    rules: { 'jupyter/prefer-lazy-imports': 'off' }
  },
  {
    // the properties of ours that are shown, besides those that the rule knows
    files: ['labextension/src/**'],
    rules: {
      'jupyter/no-untranslated-string': [
        'error',
        {
          checkProperties: [
            ...['alt', 'aria-description', 'aria-label', 'aria-valuetext'],
            ...['body', 'cancelLabel', 'caption', 'category', 'detail'],
            ...['innerText', 'label', 'note', 'okLabel', 'placeholder'],
            ...['problem', 'remark', 'summary', 'text', 'textContent', 'title'],
            ...['tooltip', 'unitName']
          ]
        }
      ]
    }
  },
  {
    // anywidget has no translator, tests need none
    files: [
      'labextension/src/models/presence.ts',
      'labextension/src/widget.ts',
      'labextension/tests/**'
    ],
    rules: { 'jupyter/no-untranslated-string': 'off' }
  },
  prettier
]);
