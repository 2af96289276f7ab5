// Whether the server answers, and which process it is.
import { useEffect, useState } from "./html.js"

let online = true
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
let refusal
/** Notes that the server refuses the credential of this tab, with its answer; undefined: it has another one, or none is needed any more. */
export const setRefusal = (error) => {
  if (error === refusal) return
  refusal = error
  globalThis.dispatchEvent(new Event("refusal"))
}
/** The answer by which the server refused the credential; undefined while it does not. */
export const useRefusal = () => {
  const [shown, set] = useState(refusal)
  useEffect(() => {
    const update = () => set(refusal)
    update()
    globalThis.addEventListener("refusal", update)
    return () => globalThis.removeEventListener("refusal", update)
  }, [])
  return shown
}
/** Whether the server refuses the credential. */
export const isRefused = () => refusal !== undefined
/** Whether it is of use to ask the server: it answers, and no credential is asked for. */
export const mayAsk = () => online && refusal === undefined
/** Resolves once it is of use to ask the server and the tab is seen, or when `signal` is aborted. */
export const untilMayAsk = async (signal) => {
  while (!signal.aborted && (document.hidden || !mayAsk())) {
    const { promise, resolve } = Promise.withResolvers()
    const changes = new AbortController()
    const once = { signal: changes.signal }
    for (const event of ["server", "refusal"]) globalThis.addEventListener(event, resolve, once)
    document.addEventListener("visibilitychange", resolve, once)
    signal.addEventListener("abort", resolve, once)
    await promise
    changes.abort()
  }
}

/** The processes that have answered: a new one may have another application, so everything is asked again. */
const instances = new Set()
/** How often it is asked whether the server is there, in milliseconds: while it is, and while it is away at first and at last. */
const beats = { there: 3_000, away: 1_000, most: 15_000 }
/** How long to wait after so many failures in a row, in milliseconds: 1, 2, 4, 8 and then 15 seconds. */
export const pauseAfter = (failures) => Math.min(beats.most, beats.away * 2 ** Math.max(0, failures - 1))
/** Asks whether the server is there. Resolves to whether it is another process than before. */
const isOther = async () => {
  const response = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(5_000) })
  const { instance } = await response.json()
  if (instance === undefined || instances.has(instance)) return false
  instances.add(instance)
  return instances.size > 1
}
/**
 * Asks again and again whether the server is there, also where a page has nothing else to ask, while the tab is seen and no credential is asked for. It is
 * the only one that asks while the server is away, less and less often; and at once when the tab is seen again.
 */
export const useHeartbeat = () =>
  useEffect(() => {
    let timer
    let failures = 0
    let isBeating = false
    const stop = new AbortController()
    const plan = () => {
      clearTimeout(timer)
      if (stop.signal.aborted || isBeating || document.hidden || refusal !== undefined) return
      timer = setTimeout(beat, online ? beats.there : pauseAfter(failures))
    }
    const beat = async () => {
      clearTimeout(timer)
      if (isBeating || document.hidden) return
      isBeating = true
      try {
        const isNew = await isOther()
        failures = 0
        setOnline(true)
        if (isNew && !stop.signal.aborted) {
          // it may take what the one before refused
          setRefusal(undefined)
          globalThis.dispatchEvent(new Event("instance"))
        }
      } catch {
        failures++
        setOnline(false)
      }
      isBeating = false
      plan()
    }
    // another request may be the first to learn that the server is away or back
    const noted = () => {
      if (isBeating) return
      failures = 0
      plan()
    }
    const { signal } = stop
    beat()
    document.addEventListener("visibilitychange", beat, { signal })
    for (const event of ["server", "refusal"]) globalThis.addEventListener(event, noted, { signal })
    return () => {
      stop.abort()
      clearTimeout(timer)
    }
  }, [])
