// The console: its frame with the navigation, the credential of its user, and the page that the address names.
import { setCredential, useCredential, useGet, useOnline } from "./lib/api.js"
import { isUtc, setUtc, zone } from "./lib/format.js"
import { html, render, useEffect, useRef, useState } from "./lib/html.js"
import { linkTo, useRoute } from "./lib/router.js"
import { ActionHost, Problem } from "./parts/common.js"

/** The pages by their first part of the address: a title, and what loads them. */
const page = (title, load) => ({ title, load })
const pages = {
  overview: page("Overview", () => import("./pages/overview.js")),
  pipeline: page("Pipeline", () => import("./pages/pipeline.js")),
  windows: page("Windows", () => import("./pages/windows.js")),
  explain: page("Explain", () => import("./pages/explain.js")),
  live: page("Live", () => import("./pages/live.js")),
  events: page("Events", () => import("./pages/events.js")),
  tables: page("Tables", () => import("./pages/tables.js")),
  aggregates: page("Aggregates", () => import("./pages/aggregates.js")),
  send: page("Send", () => import("./pages/send.js")),
  topics: page("Topics", () => import("./pages/topics.js")),
  versions: page("Versions", () => import("./pages/versions.js")),
  "dead-letters": page("Dead letters", () => import("./pages/dead-letters.js"))
}
const groups = [
  ["", ["overview", "pipeline"]],
  ["Data", ["live", "windows", "events", "tables", "explain"]],
  ["Do", ["send", "aggregates"]],
  ["System", ["topics", "versions", "dead-letters"]]
]
const home = "overview"

/** Asks for an API key, and says why. */
const Credential = ({ error, onClose }) => {
  const [text, setText] = useState("")
  const submit = (event) => {
    event.preventDefault()
    setCredential(text.trim())
    onClose?.()
  }
  return html`<form class="card" onSubmit=${submit}>
    <h2>Who looks?</h2>
    <${Problem} error=${error} />
    <p>
      This server asks for a credential. Create a key with
      <code>npx millrace keys create NAME --scopes read,operate</code>, and paste it here. It stays in this tab.
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
      <button class="primary">Use it</button
      >${onClose && html`<button type="button" onClick=${onClose}>Cancel</button>`}
    </div>
  </form>`
}

/** The page of the address, loaded when it is first opened. */
const Page = ({ name, route }) => {
  const [loaded, setLoaded] = useState({ name: undefined })
  useEffect(() => {
    let isGone = false
    pages[name].load().then(
      (module) => !isGone && setLoaded({ name, view: module.default }),
      () =>
        !isGone &&
        setLoaded({
          name,
          error: { message: "this page could not be loaded", advice: "reload the page when the server answers" }
        })
    )
    return () => (isGone = true)
  }, [name])
  useEffect(() => {
    document.title = `${pages[name].title} · Millrace`
  }, [name])
  if (loaded.name !== name) return html`<p class="quiet" role="status">Loading…</p>`
  return loaded.error
    ? html`<${Problem} error=${loaded.error} />`
    : html`<${loaded.view} path=${route.path.slice(1)} query=${route.query} />`
}

const App = () => {
  const route = useRoute()
  const online = useOnline()
  const key = useCredential()
  const [utc, setZone] = useState(isUtc())
  const [asks, setAsks] = useState(false)
  const main = useRef()
  const name = Object.hasOwn(pages, route.path[0]) ? route.path[0] : home
  // whether the credential may do anything, and the name of the application
  const topics = useGet("/v1/topics", { every: 30_000 })
  const isRefused = topics.error?.status === 401
  useEffect(() => main.current?.scrollTo?.(0, 0), [name])
  const toggleZone = () => {
    setUtc(!utc)
    setZone(!utc)
  }
  return html`<a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}
      >To the content</a
    >
    <div class="frame">
      <nav aria-label="Pages">
        <a class="brand" href=${linkTo(home)}><img src="/console/icon.svg" alt="" /><span>Millrace</span></a>
        ${groups.map(
          ([title, names]) =>
            html`${title && html`<div class="group" aria-hidden="true">${title}</div>`}${names.map(
              (one) =>
                html`<a key=${one} href=${linkTo(one)} aria-current=${one === name ? "page" : undefined}
                  >${pages[one].title}</a
                >`
            )}`
        )}
        <div class="foot">
          <button
            type="button"
            class="small"
            aria-pressed=${utc}
            onClick=${toggleZone}
            title="Times in your zone, or in UTC"
          >
            ${zone()}
          </button>
          ${
            key !== undefined &&
            html`<button type="button" class="small" onClick=${() => setCredential("")}>Forget the key</button>`
          }
          ${key === undefined && !isRefused && html`<button type="button" class="small" onClick=${() => setAsks(true)}>Use a key</button>`}
          <a href="/docs/">HTTP routes</a>
        </div>
      </nav>
      <main id="main" tabindex="-1" ref=${main}>
        ${!online && html`<div class="note-box" role="status">The server does not answer. What is shown is the last that it said; the page goes on when it is back.</div>`}
        ${
          isRefused || asks
            ? html`<${Credential}
                error=${key === undefined ? undefined : topics.error}
                onClose=${isRefused ? undefined : () => setAsks(false)}
              />`
            : html`<${Page} key=${`${name} ${key ?? ""}`} name=${name} route=${route} />`
        }
      </main>
      <${ActionHost} />
    </div>`
}

render(html`<${App} />`, document.body)
