import rehypeKatex from 'rehype-katex';
import remarkMath from 'remark-math';

export default {
  title: 'Tidewater',
  url: 'https://corpus.example',
  baseUrl: '/',
  onBrokenLinks: 'warn',
  markdown: {format: 'md'},
  presets: [
    ['classic', {
      docs: {remarkPlugins: [remarkMath], rehypePlugins: [rehypeKatex]},
      blog: false,
    }],
  ],
  themeConfig: {
    navbar: {title: 'Tidewater', items: [{type: 'doc', docId: 'first-tide', label: 'Guide'}]},
    footer: {links: [{title: 'More', items: [{label: 'Guide', to: '/docs/first-tide'}]}], copyright: 'Copyright Oysterhaven'},
  },
};
