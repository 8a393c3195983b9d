// Keeps the page current: the main part is fetched again while the page is looked at.
(() => {
  const interval_ms = 2000;
  const refresh = async () => {
    const open = new Set([...document.querySelectorAll("details[open]")].map((part) => part.id));
    try {
      const text = await (await fetch(location.href)).text();
      const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      if (!main || String(getSelection())) return;
      const scrolled = [...document.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
      for (const part of main.querySelectorAll("details")) part.open = open.has(part.id);
      document.querySelector("main").replaceWith(main);
      document.querySelectorAll(".scroll").forEach((part, index) => { part.scrollLeft = scrolled[index] || 0; });
      document.body.style.opacity = "";
    } catch {
      document.body.style.opacity = ".5";
    }
  };
  setInterval(() => { if (!document.hidden) refresh(); }, interval_ms);
})();
