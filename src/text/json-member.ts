// Finds a member of a JSON object as text, so that no digit of a number in it is lost. Pure.

/** The index behind the string that begins at `at`. */
const endOfString = (json: string, at: number): number => {
  for (let i = at + 1; i < json.length; i++) {
    if (json[i] === "\\") i++
    else if (json[i] === '"') return i + 1
  }
  return json.length
}
const pastBlanks = (json: string, at: number): number => {
  let i = at
  while (i < json.length && " \t\r\n".includes(json[i]!)) i++
  return i
}
/** The index behind the value that begins at `at`. */
const endOfValue = (json: string, at: number): number => {
  let depth = 0
  for (let i = at; i < json.length;) {
    const character = json[i]!
    if (character === '"') i = endOfString(json, i)
    else {
      if (depth === 0 && (character === "," || character === "}" || character === "]")) return i
      if (character === "{" || character === "[") depth++
      else if (character === "}" || character === "]") depth--
      i++
    }
    if (depth === 0 && (character === '"' || character === "}" || character === "]")) return i
  }
  return json.length
}

/** The text of a member, as it is in the text of an object, which must be valid JSON. Undefined if the object has none of this name. */
export const memberText = (json: string, name: string): string | undefined => {
  let at = pastBlanks(json, json.indexOf("{") + 1)
  while (json[at] === '"') {
    const end = endOfString(json, at)
    const isFound = JSON.parse(json.slice(at, end)) === name
    // behind the colon
    const from = pastBlanks(json, pastBlanks(json, end) + 1)
    const to = endOfValue(json, from)
    if (isFound) return json.slice(from, to).trimEnd()
    at = pastBlanks(json, pastBlanks(json, to) + 1)
  }
  return undefined
}
