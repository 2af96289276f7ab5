// Asks for what the first page shows while its modules are loaded: `lib/api.js` takes the answers.
if (/^(#\/?(overview)?)?$/.test(location.hash)) {
  const key = sessionStorage.getItem("millrace.credential")
  const headers = key === null ? {} : { authorization: `Bearer ${key}` }
  const ask = (path) => [path, fetch(path, { headers, cache: "no-store" }).catch(() => undefined)]
  const operations = ["topics", "application", "status"].map((name) => `/v1/operations/${name}`)
  globalThis.asked = { key, answers: Object.fromEntries([...operations, "/v1/views"].map(ask)) }
}
