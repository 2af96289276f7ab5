// Whether the server answers, and which process it is.
import { useEffect, useState } from "./html.js"

let online = true
/** Whether it answered lately; components learn of changes by `useOnline`. */
export const isOnline = () => online
/** Notes whether the server has answered. */
export const setOnline = (next) => {
  if (next === online) return
  online = next
  globalThis.dispatchEvent(new Event("server"))
}
/** Whether the server answers. */
export const useOnline = () => {
  const [answers, set] = useState(online)
  useEffect(() => {
    const update = () => set(online)
    globalThis.addEventListener("server", update)
    return () => globalThis.removeEventListener("server", update)
  }, [])
  return answers
}
/** The processes that have answered: a new one may have another application, so everything is asked again. */
const instances = new Set()
/** How often it is asked whether the server is there, in milliseconds: while it is, and while it is away. */
const beats = { there: 3_000, away: 1_000 }
/** Asks again and again whether the server is there, also where a page has nothing else to ask. */
export const useHeartbeat = () =>
  useEffect(() => {
    let timer
    let isGone = false
    const beat = async () => {
      if (!document.hidden)
        try {
          const response = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(5_000) })
          const { instance } = await response.json()
          setOnline(true)
          const isNew = instance !== undefined && instances.size > 0 && !instances.has(instance)
          if (instance !== undefined) instances.add(instance)
          if (isNew && !isGone) globalThis.dispatchEvent(new Event("instance"))
        } catch {
          setOnline(false)
        }
      if (!isGone) timer = setTimeout(beat, online ? beats.there : beats.away)
    }
    const look = () => {
      if (document.hidden) return
      clearTimeout(timer)
      beat()
    }
    beat()
    document.addEventListener("visibilitychange", look)
    return () => {
      isGone = true
      clearTimeout(timer)
      document.removeEventListener("visibilitychange", look)
    }
  }, [])
