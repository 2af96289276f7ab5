// The text of one field of a JSON object, as it was sent: with all digits of its numbers, its spaces and the order of its fields.

/** The index after the JSON value that begins at `from`: a text, an object, an array, or anything up to a comma or the end of what it is in. */
const endOf = (text, from) => {
  let depth = 0
  for (let i = from; i < text.length; i++) {
    switch (text[i]) {
      case '"':
        for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++
        if (depth === 0) return i + 1
        break
      case "{":
      case "[":
        depth++
        break
      case "}":
      case "]":
        if (depth === 0) return i
        if (--depth === 0) return i + 1
        break
      case ",":
        if (depth === 0) return i
    }
  }
  return text.length
}
/** The text of a field of the object that begins at `from`; undefined if it has no such field. There are no spaces around its names, as in answers of the server. */
export const rawField = (text, name, from = 0) => {
  let at = from + 1
  while (text[at] === '"') {
    const colon = endOf(text, at)
    const end = endOf(text, colon + 1)
    if (JSON.parse(text.slice(at, colon)) === name) return text.slice(colon + 1, end)
    at = end + 1
  }
  return undefined
}
