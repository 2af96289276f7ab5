// A plugin of markdown-it: links of the repository's pages lead to the site's pages, and Mermaid blocks are kept as text for the browser.
import { fileOf, images, pageAt, sourcePageOf, sources, targetOf } from "./pages.ts"

interface Token {
  readonly type: string
  readonly info: string
  readonly content: string
  readonly children: ReadonlyArray<Token> | null
  readonly attrGet: (name: string) => string | null
  readonly attrSet: (name: string, value: string) => void
}
interface Environment {
  readonly relativePath?: string
}
type BlockRule = (state: BlockState, line: number, ...rest: ReadonlyArray<unknown>) => boolean
interface BlockState {
  readonly src: string
  readonly bMarks: ReadonlyArray<number>
  readonly tShift: ReadonlyArray<number>
}
type Rule = (tokens: ReadonlyArray<Token>, at: number, ...rest: ReadonlyArray<unknown>) => string
/** What is used of markdown-it. */
export interface Markdown {
  render: (text: string, environment: Environment) => string
  readonly block: {
    readonly ruler: {
      readonly __rules__: ReadonlyArray<{ readonly name: string; readonly fn: BlockRule }>
      readonly at: (name: string, rule: BlockRule, options: { readonly alt: ReadonlyArray<string> }) => void
    }
  }
  readonly core: {
    readonly ruler: {
      readonly push: (
        name: string,
        rule: (state: { readonly tokens: ReadonlyArray<Token>; readonly env: Environment }) => void
      ) => void
    }
  }
  readonly renderer: { readonly rules: { fence?: Rule } }
}
/** Where the site is served, and the address at which the repository's files can be read, if there is one. */
export interface Addresses {
  readonly base: string
  readonly repository: string | undefined
}

/**
 * Leads a link of a page to the site's page. A link to a source file leaves the generator's pages, and one that leads nowhere stays, so that the
 * check of links reports it.
 */
const relink = (token: Token, file: string, { base, repository }: Addresses): void => {
  const link = token.attrGet("href") ?? ""
  if (/^([a-z]+:|#|\/)/i.test(link)) return
  const target = targetOf(file, link)
  const heading = link.includes("#") ? link.slice(link.indexOf("#")) : ""
  const page = pageAt(target)
  if (page !== undefined) token.attrSet("href", `/${page}${heading}`)
  else if (sources.includes(target)) {
    token.attrSet("href", `${repository ?? base}${repository === undefined ? sourcePageOf(target) : target}`)
    token.attrSet("target", "_self")
  }
}

const htmlTag = /^<(!--|\/?(a|br|details|div|img|p|picture|source|summary|sub|sup|table|tbody|td|th|thead|tr)[\s>])/i
const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** The headings' ids as GitHub makes them, so that links to headings work there and here. */
export const headingId = (heading: string): string =>
  heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-")

/** Installs the plugin. What pages write as text is never a template of Vue. */
export const install = (markdown: Markdown, addresses: Addresses): void => {
  markdown.core.ruler.push("repository-links", ({ env, tokens }) => {
    const file = fileOf(env.relativePath ?? "")
    if (file === undefined) return
    for (const token of tokens.flatMap(({ children }) => children ?? [])) {
      if (token.type === "link_open") relink(token, file, addresses)
      const image = token.type === "image" ? targetOf(file, token.attrGet("src") ?? "") : ""
      if (images.includes(image)) token.attrSet("src", `${addresses.base}files/${image}`)
    }
  })
  // VitePress takes every tag at the beginning of a line for a component: only those of HTML are one, as on GitHub
  const { ruler } = markdown.block
  // oxlint-disable-next-line no-underscore-dangle -- there is no other way to a rule that is installed
  const htmlBlock = ruler.__rules__.find(({ name }) => name === "html_block")!.fn
  ruler.at(
    "html_block",
    (state, line, ...rest) =>
      htmlTag.test(state.src.slice(state.bMarks[line]! + state.tShift[line]!)) && htmlBlock(state, line, ...rest),
    { alt: ["paragraph", "reference", "blockquote"] }
  )
  const { fence } = markdown.renderer.rules
  markdown.renderer.rules.fence = (tokens, at, ...rest) => {
    const { content, info } = tokens[at]!
    if (info.trim() === "mermaid")
      return `<div class="diagram" tabindex="0" role="group" aria-label="Picture"><pre>${escaped(content)}</pre></div>\n`
    return fence?.(tokens, at, ...rest) ?? ""
  }
  const render = markdown.render.bind(markdown)
  markdown.render = (text, environment) => {
    const html = render(text, environment)
    return environment.relativePath === "index.md" ? html : `<div v-pre>${html}</div>`
  }
}
