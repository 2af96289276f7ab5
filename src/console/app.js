// The console: its frame with the navigation, the credential of its user, and the page that the address names.
import { forgetCredential, takeCredential, useCredential, useGet, userOf } from "./lib/api.js"
import { dataText, isUtc, setUtc, shortened, visible, zone } from "./lib/format.js"
import { html, render, useEffect, useRef, useState } from "./lib/html.js"
import { setAllowed, useLack } from "./lib/may.js"
import { setOnline, useHeartbeat, useOnline, useRefusal } from "./lib/online.js"
import { linkTo, useRoute } from "./lib/router.js"
import { ActionHost, Problem } from "./parts/common.js"

/** The pages by their first part of the address: a title, what loads them, and the scope that all of it needs. */
const page = (title, load, scope) => ({ title, load, scope })
const pages = {
  overview: page("Overview", () => import("./pages/overview.js")),
  pipeline: page("Pipeline", () => import("./pages/pipeline.js"), "operate"),
  windows: page("Windows", () => import("./pages/windows.js"), "read"),
  entity: page("Entity", () => import("./pages/entity.js"), "read"),
  explain: page("Explain", () => import("./pages/explain.js"), "read"),
  live: page("Live", () => import("./pages/live.js"), "read"),
  events: page("Events", () => import("./pages/events.js"), "read"),
  tables: page("Tables", () => import("./pages/tables.js"), "read"),
  aggregates: page("Aggregates", () => import("./pages/aggregates.js"), "read"),
  send: page("Send", () => import("./pages/send.js"), "ingest"),
  topics: page("Topics", () => import("./pages/topics.js"), "operate"),
  versions: page("Versions", () => import("./pages/versions.js"), "operate"),
  timers: page("Timers", () => import("./pages/timers.js"), "operate"),
  "dead-letters": page("Dead letters", () => import("./pages/dead-letters.js"), "operate")
}
const groups = [
  ["", ["overview", "pipeline"]],
  ["Data", ["live", "windows", "events", "tables", "entity", "explain"]],
  ["Do", ["send", "aggregates"]],
  ["System", ["topics", "versions", "timers", "dead-letters"]]
]
const home = "overview"

/**
 * Asks for an API key, and says why. It is above the page, which stays as it is, with what was typed; and above a dialog, if one is open. The focus goes
 * back to where it was.
 */
const Credential = ({ error, onClose }) => {
  const [text, setText] = useState("")
  const [state, setState] = useState({ error })
  const box = useRef()
  const opener = useRef(document.activeElement)
  useEffect(() => {
    if (document.querySelector("dialog:modal")) box.current.showModal()
    else box.current.show()
    return () => requestAnimationFrame(() => opener.current?.focus?.())
  }, [])
  const cancel = (event) => {
    event.preventDefault()
    onClose?.()
  }
  const submit = async (event) => {
    event.preventDefault()
    setState({ isChecking: true })
    try {
      await takeCredential(text.trim())
      onClose?.()
    } catch (problem) {
      setState({ error: problem })
    }
  }
  return html`<dialog class="card who" ref=${box} aria-labelledby="who" onCancel=${cancel}>
    <form onSubmit=${submit}>
      <h2 id="who">Who looks?</h2>
      <${Problem} error=${state.error} />
      <p>
        This server asks for a credential. Create a key with${" "}<code
          >npx millrace keys create NAME --scopes read,operate</code
        >, and paste it here. It stays in this tab.
      </p>
      <label class="field"
        ><span>API key or token</span
        ><input
          type="password"
          autocomplete="off"
          value=${text}
          onInput=${(event) => setText(event.target.value)}
          required
      /></label>
      <div class="row">
        <button class="primary" disabled=${state.isChecking}>Use it</button
        >${onClose && html`<button type="button" onClick=${onClose}>Cancel</button>`}
      </div>
    </form>
  </dialog>`
}

/** What an address shows that no page has. */
const Unknown = ({ name }) =>
  html`<header class="head"><h1>There is no page ${shortened(name, 60)}</h1></header>
    <p>The address may be cut off, or from another version of the console. These are its pages:</p>
    <ul class="bare">
      ${Object.entries(pages).map(([one, { title }]) => html`<li key=${one}><a href=${linkTo(one)}>${title}</a></li>`)}
    </ul>`

/** What a process that has not started yet waits for. */
const Starting = () => {
  const ready = useGet("/readyz", { every: 1_000, accept: [503] })
  return html`<p class="note-box">
    The process is starting${ready.data?.waiting_for ? `, and waits: ${ready.data.waiting_for}` : ""}. The page goes on
    by itself.
  </p>`
}

/**
 * Reloads the document if the server answers: the browser keeps a module that it could not load as failed for as long as the document is there. Not twice
 * within ten seconds, if that did not help.
 */
const reloadOnce = async () => {
  try {
    await fetch("/healthz", { cache: "no-store" })
  } catch {
    return setOnline(false)
  }
  const last = "millrace.reloaded"
  if (Date.now() - Number(sessionStorage.getItem(last)) < 10_000) return
  sessionStorage.setItem(last, Date.now())
  location.reload()
}

/** The page of the address, loaded when it is first opened. */
const Page = ({ name, route }) => {
  const [loaded, setLoaded] = useState({ name: undefined })
  const online = useOnline()
  const isFailed = loaded.error !== undefined
  useEffect(() => {
    if (loaded.name === name) return
    let isGone = false
    pages[name].load().then(
      (module) => !isGone && setLoaded({ name, view: module.default }),
      () =>
        !isGone &&
        setLoaded({
          name,
          error: {
            message: "this page could not be loaded",
            advice: "it is loaded once the server answers; else reload the console"
          }
        })
    )
    return () => (isGone = true)
  }, [name])
  useEffect(() => void (isFailed && online && reloadOnce()), [isFailed, online])
  if (loaded.name !== name) return html`<p class="quiet" role="status">Loading…</p>`
  return loaded.error
    ? html`<${Problem} error=${loaded.error} />`
    : html`<${loaded.view} path=${route.path.slice(1)} query=${route.query} />`
}

/**
 * The title of the document, which says what is shown, as the page's heading does: `f-1 · alert-case · Aggregates · Millrace`. Screen readers announce the page
 * that a link opened, and the page gets the focus if its link is gone.
 */
const Announcement = ({ main, parts }) => {
  const title = [...parts.toReversed().map((part) => visible(dataText(shortened(part, 60)))), "Millrace"].join(" · ")
  const isFirst = useRef(true)
  const [text, setText] = useState("")
  useEffect(() => {
    document.title = title
    if (isFirst.current) return void (isFirst.current = false)
    setText(title)
    const timer = setTimeout(() => {
      if (document.activeElement === document.body) main.current?.focus({ preventScroll: true })
    }, 100)
    return () => clearTimeout(timer)
  }, [title])
  return html`<p class="sr" role="status" aria-live="polite">${text}</p>`
}

/** A page whose scope the credential lacks. */
const Lacking = ({ error, title }) =>
  html`<header class="head"><h1>${title}</h1></header>
    <${Problem} error=${error} />`

/** The pages, and what is about the user. On a phone a button opens them. */
const Navigation = ({ canUseKey, name, onKey, route }) => {
  const key = useCredential()
  const [utc, setZone] = useState(isUtc())
  const [isOpen, setOpen] = useState(false)
  const lackOf = useLack()
  const menu = useRef()
  useEffect(() => setOpen(false), [route])
  const toggleZone = () => {
    setUtc(!utc)
    setZone(!utc)
  }
  const close = ({ key: pressed }) => {
    if (pressed !== "Escape" || !isOpen) return
    setOpen(false)
    menu.current.focus()
  }
  return html`<nav aria-label="Pages" class=${isOpen ? "open" : ""} onKeyDown=${close}>
    <a class="brand" href=${linkTo(home)}><img src="/console/icon.svg" alt="" /><span>Millrace</span></a>
    <button type="button" class="menu" ref=${menu} aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
      Pages
    </button>
    ${groups.map(
      ([title, names]) =>
        html`${title && html`<div class="group" aria-hidden="true">${title}</div>`}${names.map(
          (one) =>
            html`<a key=${one} href=${linkTo(one)} aria-current=${one === name ? "page" : undefined}
              >${pages[one].title}${lackOf(pages[one].scope) && html` <small>needs ${pages[one].scope}</small>`}</a
            >`
        )}`
    )}
    <div class="foot">
      <button type="button" class="small" onClick=${toggleZone} title="Switches between your zone and UTC">
        Times in ${zone()}
      </button>
      ${
        key !== undefined &&
        html`<button type="button" class="small" onClick=${forgetCredential}>Forget the key</button>`
      }
      ${key === undefined && canUseKey && html`<button type="button" class="small" onClick=${onKey}>Use a key</button>`}
      <a href="/docs/">HTTP routes</a>
    </div>
  </nav>`
}

const loadAll = () => {
  for (const { load } of Object.values(pages)) load().catch(() => undefined)
}
/** What the server says: whether it has ever answered this tab, and whether it has started. */
const useServer = () => {
  const [every, setEvery] = useState(30_000)
  const { data, error } = useGet("/v1/credential", { every })
  useHeartbeat()
  useEffect(() => data && setAllowed(data), [data])
  useEffect(() => setEvery(error === undefined ? 30_000 : 3_000), [error === undefined])
  // so that each page opens also while the server is away
  useEffect(() => void setTimeout(loadAll, 3_000), [])
  return { hasAnswered: data !== undefined, isStarting: error?.code === "starting" }
}

const App = () => {
  const route = useRoute()
  const online = useOnline()
  const key = useCredential()
  const [asks, setAsks] = useState(false)
  const main = useRef()
  const name = route.path[0] === "" ? home : route.path[0]
  const isKnown = Object.hasOwn(pages, name)
  const { hasAnswered, isStarting } = useServer()
  const refusal = useRefusal()
  const isRefused = refusal !== undefined
  const lack = useLack()(pages[name]?.scope)
  const parts = isKnown ? [pages[name].title, ...route.path.slice(1)] : ["No such page"]
  useEffect(() => globalThis.scrollTo(0, 0), [parts.join("/")])
  return html`<a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}
      >To the content</a
    >
    <div class="frame">
      <${Navigation} name=${name} route=${route} canUseKey=${!isRefused} onKey=${() => setAsks(true)} />
      <main id="main" tabindex="-1" ref=${main}>
        <${Announcement} main=${main} parts=${parts} />
        <div role="status" class="server">
          ${!online && html`<p class="note-box">The server does not answer. What is shown is the last that it said; the page goes on by itself when it is back.</p>`}
          ${online && isStarting && html`<${Starting} />`}
        </div>
        ${
          (isRefused || asks) &&
          html`<${Credential}
            error=${key === undefined ? undefined : refusal}
            onClose=${isRefused ? undefined : () => setAsks(false)}
          />`
        }
        <div class="page" inert=${isRefused || asks}>
          ${
            !isKnown
              ? html`<${Unknown} name=${name} />`
              : lack
                ? html`<${Lacking} error=${lack} title=${pages[name].title} />`
                : (hasAnswered || !isRefused) &&
                  html`<${Page} key=${`${name} ${userOf()}`} name=${name} route=${route} />`
          }
        </div>
      </main>
      <${ActionHost} key=${userOf()} />
    </div>`
}

render(html`<${App} />`, document.body)
