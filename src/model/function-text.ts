// The text of a function without what does not change its meaning, by which another function in its place is noticed. Pure.

const space = /\s/
/** Where a comment, a string or a template that begins at `i` ends; `i` itself if none begins there. */
const endOf = (text: string, i: number): number => {
  const start = text.slice(i, i + 2)
  if (start === "//") return indexOr(text, "\n", i)
  if (start === "/*") return indexOr(text, "*/", i + 2) + 2
  const quote = text[i]
  if (quote !== '"' && quote !== "'" && quote !== "`") return i
  let end = i + 1
  while (end < text.length && text[end] !== quote) end += text[end] === "\\" ? 2 : 1
  return end + 1
}
const indexOr = (text: string, part: string, from: number): number => {
  const found = text.indexOf(part, from)
  return found < 0 ? text.length : found
}

/**
 * A function's source without comments, white space, semicolons and trailing commas, and with double quotes: what formatters, compilers and
 * the removal of types change. It is no proof: a function of the same text may see other values, and one of another text may do the same.
 */
export const functionText = (run: (...args: never) => unknown): string => {
  const text = Function.prototype.toString.call(run)
  const kept: Array<string> = []
  for (let i = 0; i < text.length;) {
    const end = endOf(text, i)
    if (end > i) {
      if (text[i] !== "/") kept.push(text[i] === "'" ? `"${text.slice(i + 1, end - 1)}"` : text.slice(i, end))
      i = end
      continue
    }
    const char = text[i++]!
    if (char !== ";" && !space.test(char)) kept.push(char)
  }
  return kept.filter((char, i) => char !== "," || !/^[)\]}]/.test(kept[i + 1] ?? "")).join("")
}
