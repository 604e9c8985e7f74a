"""Configuration of Sphinx; `make docs` builds without a network."""

import warnings

import matplotlib as mpl

import sklcomp

mpl.use("Agg")

project = "sklcomp"
author = "The sklcomp developers"
copyright = "the sklcomp developers"
version = release = sklcomp.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

autosummary_generate = True
autodoc_typehints = "none"
# The methods are listed by our template; numpydoc would list inherited ones too.
numpydoc_show_class_members = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "plot_",
    "ignore_pattern": r"quickstart\.py$|/output/",
    "min_reported_time": 1,
    "download_all_examples": False,
    "write_computation_times": False,
    "show_memory": False,
    "remove_config_comments": True,
    "doc_module": ("sklcomp",),
    "backreferences_dir": None,
}
# Examples show the pictures through plt.show(), which has nothing to do under Agg.
warnings.filterwarnings("ignore", message=".*Agg.* non-interactive")

html_theme = "pydata_sphinx_theme"
html_title = f"sklcomp {version}"
html_static_path = ["_static"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "sklcomp"},
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {
    name: [] for name in ("index", "install", "api", "papers", "contributing",
                          "changelog")
}  # fmt: skip
