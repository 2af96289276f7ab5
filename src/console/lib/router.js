// The address in the fragment of the URL: `#/events?topic=alerts.v1`. Every state that is worth a link is in it, and back works.
import { useEffect, useState } from "./html.js"

/** A part of a path; one that was cut off within a character stays as it is written. */
const decoded = (part) => {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
/** The path's parts and the parameters of a fragment. */
export const routeOf = (hash) => {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?")
  return { path: path.split("/").map(decoded), query: Object.fromEntries(new URLSearchParams(query)) }
}
const read = () => routeOf(location.hash)
/** The path's parts and the parameters of the address, as they change. */
export const useRoute = () => {
  const [route, setRoute] = useState(read)
  useEffect(() => {
    const update = () => setRoute(read())
    globalThis.addEventListener("hashchange", update)
    return () => globalThis.removeEventListener("hashchange", update)
  }, [])
  return route
}
/** The address of a page: parts of the path, and parameters of which empty ones are left out. */
export const linkTo = (parts, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "")
  const path = (Array.isArray(parts) ? parts : [parts]).map((part) => encodeURIComponent(part)).join("/")
  return `#/${path}${given.length === 0 ? "" : `?${new URLSearchParams(given)}`}`
}
/** Goes to an address; with `replace` the one before is not kept in the history. */
export const go = (link, { replace = false } = {}) => {
  if (!replace) location.hash = link
  else {
    history.replaceState(null, "", link)
    globalThis.dispatchEvent(new HashChangeEvent("hashchange"))
  }
}
