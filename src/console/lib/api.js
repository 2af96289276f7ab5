// Requests to the public HTTP API, with the credential of the user.
import { shellWord } from "./format.js"
import { useEffect, useState } from "./html.js"
import { parseJson } from "./json.js"
import { maySeeSame, setAllowed } from "./may.js"
import { isRefused, mayAsk, pauseAfter, setOnline, setRefusal } from "./online.js"

const storage = "millrace.credential"

/** The API key or token of this tab; undefined if none was given. It stays in the tab: other tabs and later visits do not have it. */
export const credential = () => sessionStorage.getItem(storage) ?? undefined
let users = 0
/** The number of the user of this tab: another one once the credential was forgotten or changed, but not when one that sees the same took the place of one that was refused. */
export const userOf = () => users
/** Keeps a credential for this tab; an empty one forgets it. `answer`: what it allows, if that is known. What another user has seen and sent is dropped. */
const setCredential = (text, answer) => {
  const before = credential()
  if (answer === undefined || !isRefused() || !maySeeSame(answer)) {
    users++
    sessionStorage.clear()
  }
  setAllowed(answer)
  if (text === "") sessionStorage.removeItem(storage)
  else sessionStorage.setItem(storage, text)
  setRefusal(undefined)
  // the same one again may be taken now
  globalThis.dispatchEvent(new Event(credential() === before ? "server" : "credential"))
}
/** Forgets the credential of this tab. */
export const forgetCredential = () => setCredential("")
/** Takes a credential for this tab, once the server has said what it allows. Rejects with an `ApiError` if it is refused. */
export const takeCredential = async (text) => setCredential(text, await get("/v1/credential", { key: text }))
/** Notes an answer that refuses the credential `key`, unless the tab has another one by now: the frame asks for one. */
export const noteRefusal = (key, error) => {
  if (error.status === 401 && key === credential()) setRefusal(error)
}

/** An answer that is no success: `code`, `message` and `advice` (what to do) as the API gives them, and the HTTP `status` (0: no answer). */
export class ApiError extends Error {
  constructor({ advice, body, code, message, status }) {
    super(message)
    this.advice = advice
    this.body = body
    this.code = code
    this.status = status
  }
}

/** The headers of a request with the credential `key`, if there is one, and with a body of JSON, if it has one. */
export const headersOf = (key, body, headers) => ({
  ...(body !== undefined && { "content-type": "application/json" }),
  ...(key !== undefined && { authorization: `Bearer ${key}` }),
  ...headers
})
/** An answer as an `ApiError`. */
export const errorOf = (status, text) => {
  let body
  try {
    body = parseJson(text)
  } catch {
    body = undefined
  }
  const { code, message, try: advice } = body?.error ?? {}
  return new ApiError({
    status,
    body,
    code: code ?? `http_${status}`,
    message: message ?? body?.reason ?? (text.slice(0, 300) || `the server answered ${status}`),
    advice
  })
}

/** The answer to what `ask.js` asked for with this credential, once. */
const askedFirst = (path, key = null) => {
  const { answers, key: own } = globalThis.asked ?? {}
  const answer = own === key ? answers?.[path] : undefined
  if (answer !== undefined) delete answers[path]
  return answer
}

/** Sends a request. `body` is sent as JSON, a string as it is. Resolves to `{ status, body, headers }`; rejects with an `ApiError`. `accept`: statuses beside 2xx that are no error. With `isText` it has the `text`, too. */
export const send = async (
  method,
  path,
  { accept = [], body, headers, isText = false, key = credential(), signal } = {}
) => {
  const init = { method, headers: headersOf(key, body, headers), cache: "no-store" }
  if (body !== undefined) init.body = typeof body === "string" ? body : JSON.stringify(body)
  let response
  try {
    response =
      (method === "GET" && (await askedFirst(path, key))) ||
      (await fetch(path, { ...init, signal: signal ?? AbortSignal.timeout(60_000) }))
  } catch (error) {
    if (signal?.aborted && signal.reason?.name !== "TimeoutError") throw error
    // the heartbeat notices when it is back
    setOnline(false)
    throw new ApiError({
      status: 0,
      code: "no_answer",
      message: "the server does not answer",
      advice: "is the process still running? The console goes on by itself when it is back"
    })
  }
  const text = await response.text()
  if (!response.ok) {
    const error = errorOf(response.status, text)
    noteRefusal(key, error)
    if (!accept.includes(response.status)) throw error
  }
  const isJson = response.headers.get("content-type")?.includes("json")
  const answer = { status: response.status, headers: response.headers }
  return { ...answer, body: isJson && text !== "" ? parseJson(text) : text, ...(isText && { text }) }
}
/** The body of a GET request. */
export const get = async (path, options) => (await send("GET", path, options)).body

/** The credential of this tab, as it changes. */
export const useCredential = () => {
  const [key, setKey] = useState(credential)
  useEffect(() => {
    const update = () => setKey(credential())
    globalThis.addEventListener("credential", update)
    return () => globalThis.removeEventListener("credential", update)
  }, [])
  return key
}

/** Whether an error may end by itself: the server is away, is starting, or is busy. */
const isPassing = ({ status }) => status === 0 || status === 429 || status === 502 || status === 503 || status === 504
/** How long a GET request may take, and when one is repeated that failed and may succeed later, or that the credential may not send, in milliseconds. */
const asks = { patience: 30_000, again: 2_000, refused: 30_000 }
/**
 * Asks for `path` until the returned function is called: every `every` milliseconds while the page is visible, or once, and again when the server is back
 * or another process answers; at most until `until(data)` holds. `onData` and `onError` get what comes.
 */
const keepAsking = (path, { accept, every, onData, onError, until }) => {
  const stop = new AbortController()
  let timer
  let isAsking = false
  let hasData = false
  let isDone = false
  let failures = 0
  const again = (ms) => {
    if (!stop.signal.aborted && ms !== undefined) timer = setTimeout(ask, ms)
  }
  const ask = async () => {
    clearTimeout(timer)
    // the heartbeat and the frame say when it is of use again
    if (!mayAsk()) return
    if (document.hidden && hasData) return again(every)
    isAsking = true
    try {
      const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(asks.patience)])
      const data = await get(path, { accept, signal })
      setOnline(true)
      hasData = true
      failures = 0
      if (!stop.signal.aborted) onData(data)
      isDone = Boolean(until?.(data))
      if (!isDone) again(every)
    } catch (error) {
      if (stop.signal.aborted) return
      setOnline(error.status !== 0)
      onError(error)
      failures++
      const isBusy = isPassing(error) && error.code !== "starting"
      // an answer that will not change is not asked for again, a server that is away is; what a credential may not see is asked for seldom
      if (error.status === 403) again(every && Math.max(every, asks.refused))
      else if (isBusy) again(Math.max(every ?? asks.again, pauseAfter(failures)))
      else again(every ?? (isPassing(error) ? asks.again : undefined))
    } finally {
      isAsking = false
    }
  }
  const now = () => mayAsk() && !isAsking && !isDone && ask()
  ask()
  for (const event of ["server", "instance"]) globalThis.addEventListener(event, now)
  return () => {
    stop.abort()
    clearTimeout(timer)
    for (const event of ["server", "instance"]) globalThis.removeEventListener(event, now)
  }
}
/**
 * What a GET request answers: `{ data, error, isLoading, reload }`. With `every` (milliseconds) it is asked again and again, one request at a time, while
 * the page is visible, and until `until(data)` holds; `data` stays the last answer while there is an `error`. Without, it is asked again once the server is
 * back or another process answers. A path that is undefined asks nothing.
 */
export const useGet = (path, { accept, every, until } = {}) => {
  const [state, setState] = useState({ path, data: undefined, error: undefined, isLoading: path !== undefined })
  const [round, setRound] = useState(0)
  const key = useCredential()
  useEffect(() => {
    if (path === undefined) return setState({ path, data: undefined, error: undefined, isLoading: false })
    setState((old) =>
      old.path === path ? { ...old, isLoading: true } : { path, data: undefined, error: undefined, isLoading: true }
    )
    return keepAsking(path, {
      accept,
      every,
      until,
      onData: (data) => setState({ path, data, error: undefined, isLoading: false }),
      onError: (error) =>
        setState((old) => ({ path, data: old.path === path ? old.data : undefined, error, isLoading: false }))
    })
  }, [path, every, round, key])
  const current = state.path === path ? state : { data: undefined, error: undefined, isLoading: path !== undefined }
  return { ...current, reload: () => setRound((n) => n + 1) }
}
/** Several requests of `useGet` as one: its `data` are those of all, in their order, once each has some. */
export const together = (requests) => ({
  data: requests.every(({ data }) => data !== undefined) ? requests.map(({ data }) => data) : undefined,
  error: requests.find(({ error }) => error !== undefined)?.error,
  isLoading: requests.some(({ isLoading }) => isLoading)
})

/** A path with parameters; those that are undefined or empty are left out. An empty text in an array is sent. */
export const withQuery = (path, parameters) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "")
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`
}

/** The curl command that sends a request; the key of the user is not in it. `body`: a JSON text. */
export const curlOf = (method, path, { body, headers = {} } = {}) => {
  const given = {
    ...(body !== undefined && { "content-type": "application/json" }),
    ...headers,
    ...(credential() !== undefined && { authorization: "Bearer KEY" })
  }
  return [
    "curl",
    ...(method === "GET" ? [] : ["-X", method]),
    shellWord(location.origin + path),
    ...Object.entries(given).flatMap(([name, value]) => ["-H", shellWord(`${name}: ${value}`)]),
    ...(body === undefined ? [] : ["-d", shellWord(body)])
  ].join(" ")
}
