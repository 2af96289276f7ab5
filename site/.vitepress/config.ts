// The site: navigation from docs/README.md and the generated list of the API's pages, search without a server, links as in the repository.
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitepress"
import { headingId, install, type Markdown } from "../links.ts"
import { sections } from "../pages.ts"

const base = process.env["MILLRACE_DOCS_BASE"] ?? "/"
const repository = process.env["MILLRACE_DOCS_REPOSITORY"]
const content = join(import.meta.dirname, "../.content")
const linkTo = (page: string) => `/${page.replace(/(^|\/)index\.md$/, "$1").replace(/\.md$/, ".html")}`
const api = existsSync(join(content, "api.json")) ? JSON.parse(readFileSync(join(content, "api.json"), "utf8")) : []

const guide = sections.map(({ name, pages }) => ({
  text: name,
  collapsed: true,
  items: pages.map(({ page, text }) => ({ text, link: linkTo(page) }))
}))
const apiSection = {
  text: "API",
  collapsed: true,
  items: api.map(({ module, folder }) => ({ text: module, link: `/api/${folder}/` }))
}
const sidebar = [...guide, apiSection]
const groupsOf = ({ folder, groups }) =>
  groups.map(({ name, names }) => ({
    text: name,
    collapsed: true,
    items: names.map((one) => ({ text: one, link: `/api/${folder}/${one}.html` }))
  }))
const apiSidebar = api.flatMap((one) =>
  [{ text: one.module, items: [{ text: "Overview", link: `/api/${one.folder}/` }] }].concat(groupsOf(one))
)

export default defineConfig({
  title: "Millrace",
  description: "Event sourcing with projections: one log, one atomic commit, exactly-once publishing.",
  lang: "en",
  base,
  srcDir: ".content",
  outDir: "dist",
  cacheDir: "node_modules/.vitepress",
  head: [
    ["link", { rel: "icon", href: `${base}icon.svg`, type: "image/svg+xml" }],
    // where scripts run, pictures are drawn from their text, which is not shown before
    ["script", {}, "document.documentElement.classList.add('draws')"]
  ],
  // `npm run docs` checks all links, those to headings among them, in what was built
  ignoreDeadLinks: true,
  markdown: {
    // the default themes have too little contrast for comments and keywords
    theme: { light: "github-light-high-contrast", dark: "github-dark-high-contrast" },
    anchor: { slugify: headingId },
    headers: { slugify: headingId },
    toc: { slugify: headingId },
    config: (markdown) => install(markdown as unknown as Markdown, { base, repository })
  },
  themeConfig: {
    nav: [
      ...["Start", "Guide", "Reference", "Operations"].flatMap((name) => {
        const section = guide.find(({ text }) => text === name)
        return section === undefined ? [] : [{ text: name, link: section.items[0]!.link }]
      }),
      { text: "API", link: "/api/", activeMatch: "^/api/" }
    ],
    sidebar: { "/api/": [...apiSidebar, { text: "All pages", link: "/pages.html" }], "/": sidebar },
    outline: { level: [2, 3] },
    ...(repository === undefined ? {} : { socialLinks: [{ icon: "github", link: repository }] }),
    search: {
      provider: "local",
      options: {
        detailedView: true,
        miniSearch: {
          searchOptions: {
            boostDocument: (id: string) =>
              /\/(start|guide|reference|operations)\//.test(id) ? 1.5 : /\/(api|decisions|inside)\//.test(id) ? 0.6 : 1
          }
        }
      }
    }
  }
})
