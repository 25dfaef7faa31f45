"""Use the demo in headless Chromium as a person does, and take pictures of it.

    pip install gradio selenium        # and Chromium with its driver, from the packages of the system
    python bench/demo.py --model runs/quickstart/model --output runs/demo

It checks that entities are marked with a click and with keys alone, that HTML in the text and in types is shown as
text, that nested spans and the JSON tab work, and that no page is wider than its window. The pictures show desktop and
phone, light and dark.
"""

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from shutil import which
from typing import Any

ROOT = Path(__file__).parent.parent
HOSTILE = '<script>window.HIT=1</script><img src=x onerror="window.HIT=2"> Marie Curie lived in Paris & Berlin.'
WINDOWS = {"desktop": (1280, 900), "phone": (390, 844)}


def open_page(url: str, window: str, theme: str) -> Any:
    """Return a browser that shows the demo in a window of this kind and theme."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = which("chromium") or which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(which("chromedriver")))
    width, height = WINDOWS[window]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": window == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(url)
    wait(browser, "//button[contains(., 'Find entities')]")
    return browser


def wait(browser: Any, path: str) -> Any:
    """Return the first element at an XPath as soon as it is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 120).until(lambda page: page.find_elements("xpath", path))[0]


def picture(browser: Any, path: Path) -> None:
    """Save the whole page as PNG, and check that it is not wider than the window."""
    time.sleep(1)  # transitions
    width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))
    wider = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    table = browser.execute_script("const t = document.querySelector('.spans'); return t.scrollWidth - t.clientWidth")
    assert wider <= 0 and table <= 0, f"{path.name}: the page is {wider} and its table {table} pixels too wide"


def use_the_keyboard(browser: Any) -> None:
    """Type a text and a type that contain HTML, go to the button with Tab, and check the answer."""
    from selenium.webdriver.common.keys import Keys

    text = wait(browser, "//textarea[not(@disabled)]")
    text.send_keys(Keys.CONTROL, "a")
    text.send_keys(HOSTILE)
    for label in ("Types", "Find entities"):
        for _ in range(30):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            active = browser.switch_to.active_element
            if label in (active.get_attribute("aria-label") or active.text):
                break
        else:
            raise AssertionError(f"Tab does not reach {label!r}")
        if label == "Types":
            active.send_keys("<b>planet</b>", Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    shown = wait(browser, "//*[contains(@class, 'open-ner')][contains(., 'Marie Curie')]").text
    assert "<script>" in shown and "</script><img src=x" in shown, shown  # the rest is split by the labels of spans
    assert browser.execute_script("return window.HIT") is None, "a script in the text was run"


def check(url: str, folder: Path) -> None:
    """Use the demo in every window and theme; raises AssertionError if something does not work."""
    for window in WINDOWS:
        for theme in ("light", "dark"):
            browser = open_page(url, window, theme)
            try:
                wait(browser, "//label[contains(., 'Nested')]").click()
                wait(browser, "//button[contains(., 'Find entities')]").click()
                wait(browser, "//*[contains(@class, 'open-ner')]//mark")
                picture(browser, folder / f"{window}-{theme}.png")
                if (window, theme) == ("desktop", "light"):
                    use_the_keyboard(browser)
                    picture(browser, folder / "hostile.png")
                    wait(browser, "//button[@role='tab'][contains(., 'JSON')]").click()
                    wait(browser, "//*[contains(., 'entity_group')]")
                severe = [entry["message"] for entry in browser.get_log("browser")]
                assert not severe, severe
            finally:
                browser.quit()
            print(f"{window}, {theme}: as expected")


def main() -> None:
    """Serve the demo, use it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a student's folder or Hub id")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"MODEL_ID": args.model, "GRADIO_SERVER_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "space.app"], cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE) as server:  # fmt: skip
        try:
            assert server.stdout
            next(line for line in server.stdout if "Running on" in line)
            check(f"http://127.0.0.1:{port}/", args.output)
        finally:
            server.terminate()
    print(json.dumps(sorted(path.name for path in args.output.glob("*.png"))))


if __name__ == "__main__":
    main()
