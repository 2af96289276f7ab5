// The site's pages: which Markdown file of the repository becomes which page, in which section, and which source files pages link to.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join, posix } from "node:path"

/** The root of the repository. */
export const root = join(import.meta.dirname, "..")
const read = (path: string) => readFileSync(join(root, path), "utf8")

const markdownIn = (folder: string): ReadonlyArray<string> =>
  existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
        .map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
        .filter((path) => path.endsWith(".md") && !path.includes("node_modules/"))
        .toSorted()
    : []

/** Where a Markdown file of the repository is in the site. */
const pageOf = (file: string): string => {
  if (file === "README.md") return "readme.md"
  if (file === "docs/README.md") return "pages.md"
  return file
    .replace(/^docs\//, "")
    .replace(/\/README\.md$/, "/index.md")
    .replace(/^[A-Z]+\.md$/, (name) => name.toLowerCase())
}

/** The pages of the site, by the path of their Markdown file in the repository. The pages of the API are generated beside them. */
export const pages: ReadonlyMap<string, string> = new Map(
  [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    ...["docs", "examples", "bench", "projections", "aggregates", "create-millrace"].flatMap(markdownIn)
  ]
    // the template of an application has a README of its own
    .filter((file) => existsSync(join(root, file)) && !/\/templates?\//.test(file))
    .map((file) => [file, pageOf(file)])
)
const files = new Map([...pages].map(([file, page]) => [page, file]))
/** The Markdown file in the repository that a page is made from. */
export const fileOf = (page: string): string | undefined => files.get(page)

/** Links of a Markdown text that are relative, with their labels. Code is left out. */
const linksOf = (markdown: string) =>
  [
    ...markdown
      .replaceAll(/^( *)(`{3,})[\s\S]*?^\1\2 *$/gm, "")
      .matchAll(/\[((?:[^[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:)([^)\s]+)\)/g)
  ].map(([, label = "", link = ""]) => ({ label, link }))

/** The file or folder of the repository that a link on a page leads to, without the heading. */
export const targetOf = (file: string, link: string): string => {
  const [path = ""] = link.split("#")
  return path === "" ? file : posix.join(posix.dirname(file), decodeURI(path)).replace(/\/$/, "")
}

/** The page that a file or folder of the repository is shown on, if it is on one. */
export const pageAt = (target: string): string | undefined => pages.get(target) ?? pages.get(`${target}/README.md`)

const isImage = (path: string) => /\.(svg|png|jpe?g|webp|gif)$/.test(path)
const linked = new Set([...pages.keys()].flatMap((file) => linksOf(read(file)).map(({ link }) => targetOf(file, link))))
const others = [...linked].filter((path) => pageAt(path) === undefined && existsSync(join(root, path))).toSorted()
/** Images that pages show. */
export const images: ReadonlyArray<string> = others.filter(isImage)
/** Files and folders that pages link to and that are no pages. Each becomes a page that shows its text, or its names. */
export const sources: ReadonlyArray<string> = others.filter((path) => !isImage(path))
/** The page that shows a file or folder of the repository as it is. */
export const sourcePageOf = (path: string): string => `source/${path}.html`

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
/** The HTML of the page that shows a file's text or a folder's names. The generator does not see it: it would take half of its time. */
export const sourcePage = (path: string, base: string): string => {
  const file = join(root, path)
  const bytes = statSync(file).isDirectory() ? Buffer.from(readdirSync(file).toSorted().join("\n")) : readFileSync(file)
  const isText = bytes.length < 500_000 && !bytes.includes(0)
  const text = isText ? bytes.toString("utf8") : `A file of ${Math.ceil(bytes.length / 1024)} KiB.`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escaped(path)} | Millrace</title>
<link rel="icon" href="${base}icon.svg">
<style>
:root { color-scheme: light dark }
body { margin: 0 auto; padding: 16px; max-width: 960px; font: 16px/1.6 system-ui, sans-serif; background: light-dark(#fff, #1b1b1f); color: light-dark(#3c3c43, #dfdfd6) }
h1 { font-size: 18px; overflow-wrap: anywhere }
pre { overflow-x: auto; padding: 16px; font-size: 13px; background: light-dark(#f6f6f7, #161618); border-radius: 8px }
a { color: light-dark(#3451b2, #a8b1ff) }
</style>
</head>
<body>
<p><a href="${base}index.html">Millrace</a></p>
<h1>${escaped(path)}</h1>
<pre tabindex="0"><code>${escaped(text)}</code></pre>
</body>
</html>
`
}

/** A section of the navigation, and its pages in order. */
export interface Section {
  readonly name: string
  readonly pages: ReadonlyArray<{ readonly text: string; readonly page: string }>
}

/** The sections of docs/README.md, in its order: each begins with a heading, or a line that begins with bold text. */
export const sections: ReadonlyArray<Section> = read("docs/README.md")
  .split(/^(?=\*\*|## )/m)
  .map((text) => ({
    name: /^(?:\*\*|## )([^*\n:]+)/.exec(text)?.[1]?.trim() ?? "",
    pages: linksOf(text).flatMap(({ label, link }) => {
      const page = pageAt(targetOf("docs/README.md", link))
      // what stands behind a colon explains the link in the list, and is too long for the navigation
      const text = label.replaceAll(/[`*]/g, "").replace(/: .*$/s, "").replaceAll(/\s+/g, " ")
      return page === undefined ? [] : [{ text: text.slice(0, 1).toUpperCase() + text.slice(1), page }]
    })
  }))
  .filter(({ name, pages }) => name !== "" && pages.length > 0)

/** Pages under docs/ that no section of docs/README.md has, and that no list of their own folder has. */
export const unlisted: ReadonlyArray<string> = [...pages]
  .filter(([file]) => file.startsWith("docs/") && file !== "docs/README.md")
  .filter(([file]) => !existsSync(join(root, posix.dirname(file), "README.md")))
  .filter(([, page]) => !sections.some((section) => section.pages.some((one) => one.page === page)))
  .map(([file]) => file)
