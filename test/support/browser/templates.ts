// Reads the templates of the console's sources, to find spaces that a line break removes.

/** A template with `html` before it: its text, with `¤` in place of each expression. */
type Template = string

/** Where a string or a regular expression ends that begins at `start`. */
const quotedEnd = (source: string, start: number): number => {
  const quote = source[start]
  let isClass = false
  for (let i = start + 1; i < source.length; i++) {
    if (source[i] === "\\") i++
    else if (quote === "/" && source[i] === "[") isClass = true
    else if (source[i] === "]") isClass = false
    else if (source[i] === quote && !isClass) return i
  }
  return source.length
}
/** All templates of a module. */
const templatesOf = (source: string): ReadonlyArray<Template> => {
  const found: Array<Template> = []
  const readCode = (start: number): number => {
    let depth = 0
    for (let i = start; i < source.length; i++) {
      const before = source.slice(Math.max(0, i - 8), i)
      if (source.startsWith("//", i) && source[i - 1] !== "<") i = source.indexOf("\n", i)
      else if (source.startsWith("/*", i)) i = source.indexOf("*/", i) + 1
      else if (/["']/.test(source[i]!) || (source[i] === "/" && /[=(,&|?:![{;>]\s*$/.test(before)))
        i = quotedEnd(source, i)
      else if (source[i] === "`") i = readTemplate(i + 1, before.endsWith("html"))
      else if (source[i] === "{") depth++
      else if (source[i] === "}" && depth-- === 0) return i
    }
    return source.length
  }
  const readTemplate = (start: number, isHtml: boolean): number => {
    let text = ""
    let i = start
    for (; i < source.length && source[i] !== "`"; i++) {
      if (source[i] === "\\") text += source[i]! + source[++i]!
      else if (source.startsWith("${", i)) {
        i = readCode(i + 2)
        text += "¤"
      } else text += source[i]!
    }
    if (isHtml) found.push(text)
    return i
  }
  readCode(0)
  return found
}
const opens = /^<(?:code|a|strong|em|small|span|time|¤)[\s>]|^¤$/
const closes = /^<\/(?:code|a|strong|em|small|span|time)|^<\/\/|\/>$|^¤$/

/** Texts of a module whose space before or behind something in the same line is lost: htm removes spaces beside a line break. */
export const lostSpaces = (source: string): ReadonlyArray<string> =>
  templatesOf(source).flatMap((template) => {
    const tokens = template.match(/<(?:"[^"]*"|[^>"])*>|¤|[^<¤]+/g) ?? []
    return tokens.filter(
      (token, i) =>
        !/^[<¤]/.test(token) &&
        token.trim() !== "" &&
        ((/\n\s*$/.test(token) && opens.test(tokens[i + 1] ?? "")) ||
          (/^\s*\n/.test(token) && closes.test(tokens[i - 1] ?? "")))
    )
  })
