// Checks the built site: every link, heading, script, style sheet and picture that a page names is there, and nothing is loaded from elsewhere.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join, posix } from "node:path"

/** The HTML files of a folder, by their path. */
export const htmlIn = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".html"))
    .toSorted()

const unescaped = (text: string) => text.replaceAll("&amp;", "&").replaceAll("&#39;", "'").replaceAll("&quot;", '"')
const attributes = (html: string, pattern: RegExp) =>
  [...html.matchAll(pattern)].map(([, value = ""]) => unescaped(value))

/** What is wrong with the links of a built site that is served at `base`: one line for each, with the page that has it. */
export const deadLinksOf = (folder: string, base: string): ReadonlyArray<string> => {
  const pages = new Map(
    htmlIn(folder).map((path) => {
      const html = readFileSync(join(folder, path), "utf8").replaceAll(
        /<script(?![^>]*\bsrc=)[^>]*>[\s\S]*?<\/script>/g,
        ""
      )
      return [
        path,
        {
          ids: new Set(attributes(html, /\sid="([^"]*)"/g)),
          links: attributes(html, /<a\s[^>]*?href="([^"]*)"/g),
          html
        }
      ]
    })
  )
  const fileOf = (page: string, path: string): string => {
    const absolute = path === "" ? page : path.startsWith("/") ? path.slice(1) : posix.join(posix.dirname(page), path)
    return absolute === "" || absolute.endsWith("/") ? `${absolute}index.html` : absolute
  }
  const isFile = (path: string) => existsSync(join(folder, path)) && statSync(join(folder, path)).isFile()
  return [...pages].flatMap(([page, { html, links }]) => {
    const dead = links
      .filter((link) => !/^[a-z]+:/i.test(link))
      .filter((link) => {
        const [address = "", heading] = link.split("#")
        const path = decodeURI(address)
        if (path.startsWith("/") && !path.startsWith(base)) return true
        const file = fileOf(page, path.startsWith(base) ? `/${path.slice(base.length)}` : path)
        if (!isFile(file)) return true
        return (
          heading !== undefined && heading !== "" && pages.get(file)?.ids.has(decodeURIComponent(heading)) === false
        )
      })
      .map((link) => `${page}: the link ${link} leads nowhere`)
    const parts = attributes(html, /<(?:img|script|source|link)\s[^>]*?(?:src|href)="([^"]*)"/g)
    const foreign = parts.filter((part) => /^([a-z]+:)?\/\//i.test(part))
    const missing = parts.filter(
      (part) =>
        !/^([a-z]+:|\/\/)/i.test(part) &&
        !isFile(fileOf(page, part.startsWith(base) ? `/${part.slice(base.length)}` : part))
    )
    return dead.concat(
      missing.map((part) => `${page}: the file ${part} is missing`),
      foreign.map((part) => `${page}: ${part} is loaded from elsewhere`)
    )
  })
}
