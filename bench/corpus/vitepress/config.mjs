import {readdirSync} from 'node:fs'

const pages = readdirSync(new URL('..', import.meta.url)).filter((name) => name.endsWith('.md') && name !== 'index.md')

export default {
  title: 'Tidewater',
  markdown: {math: true, lineNumbers: true},
  themeConfig: {
    nav: [{text: 'Guide', link: '/first-tide'}],
    sidebar: [{text: 'Guide', items: pages.map((name) => ({text: name.slice(0, -3), link: '/' + name.slice(0, -3)}))}],
    footer: {message: 'Released into the harbour', copyright: 'Copyright Oysterhaven'},
    search: {provider: 'local'},
    lastUpdated: false,
    editLink: {pattern: 'https://corpus.example/edit/:path'},
  },
}
